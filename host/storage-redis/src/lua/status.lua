#!lua flags=no-writes
-- Reads the counters of a subscription, all at one moment.
--
-- KEYS     stream  redelivery  due  dead  stats  timers
-- ARGV     group  far_ms (in how many a timer is far away)
-- returns  by name (nil: none yet): added (entries ever, to the stream)  base (of the counters)
--          lag (nil: has to be counted)  last_delivered (id)  pending  redelivery_pending  redelivery_length  due  dead
--          committed  skipped  duplicates  retried  dropped  now_ms  quarantined  left (for others)  consumers
--          torn (settlements)  timers (set)  far (timers)  dead_unrun (those that never ran)  dead_bytes
--          evicted_ran  evicted_unrun  strayed (entries)  repeated (deliveries)
--          oldest_pending (ids: one of each queue that has any)  oldest (ids of the oldest entries that wait)

-- Up to here they are counted by their names, each once; beyond, those of the queue that has more of them.
local CONSUMERS_MAX = 1000

local oldest, pending, info, first_new, oldest_pending = {}, {}, {}, {}, {}
local quarantined, left, names = 0, 0, {}

for i, key in ipairs({stream, redelivery}) do
    info[i] = group_info(key, group)
    if not info[i] then error({err = 'NOGROUP no group ' .. group .. ' on ' .. key}) end
    local summary = redis.call('XPENDING', key, group)
    pending[i] = summary[1]
    if summary[1] > 0 then
        oldest_pending[#oldest_pending + 1] = summary[2]
        oldest[#oldest + 1] = summary[2]
    end
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
local due_length = redis.call('ZCARD', due) + redis.call('ZCARD', timers)
local far = redis.call('ZCOUNT', timers, '(' .. whole(steady(stats, now) + far_ms), '+inf')
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

return {
    'added', added, 'base', totals[1], 'lag', lag, 'last_delivered', info[1]['last-delivered-id'], 'pending', pending[1],
    'redelivery_pending', pending[2], 'redelivery_length', redelivery_length, 'due', due_length, 'dead', dead_length,
    'committed', totals[2], 'skipped', totals[3], 'duplicates', totals[4], 'retried', totals[5], 'dropped', totals[6],
    'now_ms', whole(now), 'quarantined', quarantined, 'left', left, 'consumers', consumers, 'torn', totals[7],
    'timers', totals[8], 'far', far, 'dead_unrun', redis.call('XLEN', dead .. ':unrun'), 'dead_bytes', totals[9],
    'evicted_ran', totals[10], 'evicted_unrun', totals[11], 'strayed', totals[12], 'repeated', totals[13],
    'oldest_pending', oldest_pending, 'oldest', oldest,
}
