#!lua flags=no-writes
-- Reads the books of a source, all at one moment.
--
-- KEYS     1 stream  2 again  3 due  4 dead  5 stats
-- ARGV     1 group
-- returns  1 entries ever added to the stream  2 base of the books (nil: none)  3 lag (nil: Redis cannot say)
--          4 last id delivered  5 pending on the stream  6 pending on again  7 entries on again  8 due  9 dead
--          10 committed  11 skipped  12 duplicates  13 retried  14 dropped (nil: none yet)
--          15 now in ms  16.. ids of the oldest entries that wait

local stream, again, due, dead, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group = ARGV[1]
local oldest, pending, info = {}, {}, {}

for i, key in ipairs({stream, again}) do
    info[i] = group_info(key, group)
    if not info[i] then error({err = 'NOGROUP no group ' .. group .. ' on ' .. key}) end
    local summary = redis.call('XPENDING', key, group)
    pending[i] = summary[1]
    if summary[1] > 0 then oldest[#oldest + 1] = summary[2] end
    local next_entry = redis.call('XRANGE', key, '(' .. info[i]['last-delivered-id'], '+', 'COUNT', 1)[1]
    if next_entry then oldest[#oldest + 1] = next_entry[1] end
end

local totals = redis.call('HMGET', stats, 'base', 'committed', 'skipped', 'duplicates', 'retried', 'dropped')
local answer = {
    named(redis.call('XINFO', 'STREAM', stream))['entries-added'], totals[1], info[1].lag or false,
    info[1]['last-delivered-id'], pending[1], pending[2], redis.call('XLEN', again), redis.call('ZCARD', due),
    redis.call('XLEN', dead), totals[2], totals[3], totals[4], totals[5], totals[6], clock(),
}
for i = 1, #oldest do answer[15 + i] = oldest[i] end
return answer
