#!lua flags=no-writes
-- Reads the counters of a subscription, all at one moment.
--
-- KEYS     1 stream  2 redelivery  3 due  4 dead  5 stats  6 timers
-- ARGV     1 group  2 in how many ms a timer is far away
-- returns  1 entries ever added to the stream  2 base of the counters (nil: none)  3 lag (nil: has to be counted)
--          4 last id delivered  5 pending on the stream  6 and on redelivery  7 entries on redelivery  8 due  9 dead
--          10 committed  11 skipped  12 duplicates  13 retried  14 dropped (nil: none yet)
--          15 now in ms  16 in quarantine  17 consumers  18 oldest id pending on the stream, 19 on redelivery (or nil)
--          20 torn settlements  21 timers set (nil: none yet)  22 timers far away  23 dead letters that never ran
--          24 bytes of dead letters  25 evicted of those that ran  26 of those that never ran (nil: none yet)
--          27 entries that strayed  28 deliveries repeated (nil: none yet)  29 left for others
--          30.. ids of the oldest entries that wait

-- Up to here they are counted by their names, each once; beyond, those of the queue that has more of them.
local CONSUMERS_MAX = 1000

local stream, redelivery, due, dead, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group = ARGV[1]
local oldest, pending, info, first_new, oldest_pending = {}, {}, {}, {}, {}
local quarantined, left, names = 0, 0, {}

for i, key in ipairs({stream, redelivery}) do
    info[i] = group_info(key, group)
    if not info[i] then error({err = 'NOGROUP no group ' .. group .. ' on ' .. key}) end
    local summary = redis.call('XPENDING', key, group)
    pending[i] = summary[1]
    oldest_pending[i] = summary[1] > 0 and summary[2]
    if oldest_pending[i] then oldest[#oldest + 1] = oldest_pending[i] end
    -- No list at all where nothing is pending.
    for _, holder in ipairs(summary[4] or {}) do
        if holder[1] == QUARANTINE then quarantined = quarantined + tonumber(holder[2]) end
        if holder[1] == ELSEWHERE then left = left + tonumber(holder[2]) end
    end
    -- Long lists would make this call slow: dead consumers are removed, so there should be none.
    if info[i].consumers <= CONSUMERS_MAX then
        for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do names[named(row).name] = true end
    end
    first_new[i] = redis.call('XRANGE', key, '(' .. info[i]['last-delivered-id'], '+', 'COUNT', 1)[1]
    if first_new[i] then oldest[#oldest + 1] = first_new[i][1] end
end

local added = added_to(stream, info[1])
local redelivery_length, dead_length = redis.call('XLEN', redelivery), redis.call('XLEN', dead)
local now = clock()
local due_length = redis.call('ZCARD', due) + redis.call('ZCARD', KEYS[6])
local far = redis.call('ZCOUNT', KEYS[6], '(' .. whole(steady(stats, now) + ARGV[2]), '+inf')
names[QUARANTINE], names[RELEASED], names[ELSEWHERE] = nil, nil, nil
local consumers = 0
for _ in pairs(names) do consumers = consumers + 1 end
for i = 1, 2 do
    if info[i].consumers > CONSUMERS_MAX then consumers = math.max(consumers, info[i].consumers) end
end
local totals = redis.call('HMGET', stats, 'base', 'committed', 'skipped', 'duplicates', 'retried', 'dropped',
    'torn', 'timers', 'letters_bytes', 'evicted_ran', 'evicted_unrun', 'strayed', 'repeated')
local base = tonumber(totals[1])

-- Redis' own number is not used where it can be avoided: how many entries a group has read is not in the append-only
-- file, nor do replicas know it. After a restart the lag is too large for ever. What the counters leave over is the
-- same number; they are verified whenever nothing is left to be delivered. No number at all means that entries in the
-- middle were deleted.
local lag = info[1].lag or false
local settled = (totals[2] or 0) + (totals[3] or 0) + (totals[6] or 0) + dead_length + (totals[12] or 0) - (totals[13] or 0)
local function rest()
    return added - base + (totals[8] or 0) - settled - pending[1] - redelivery_length - due_length
end
if not first_new[1] then
    lag = 0
    -- If that does not add up, another program may have set how far the group is (ENTRIESREAD).
    if base and rest() ~= 0 then added = named(redis.call('XINFO', 'STREAM', stream))['entries-added'] end
elseif lag and base then
    lag = math.max(1, rest())
end

local answer = {
    added, totals[1], lag, info[1]['last-delivered-id'], pending[1], pending[2], redelivery_length, due_length, dead_length,
    totals[2], totals[3], totals[4], totals[5], totals[6], now, quarantined, consumers, oldest_pending[1],
    oldest_pending[2], totals[7], totals[8], far, redis.call('XLEN', dead .. ':unrun'), totals[9], totals[10], totals[11],
    totals[12], totals[13], left,
}
for i = 1, #oldest do answer[29 + i] = oldest[i] end
return answer
