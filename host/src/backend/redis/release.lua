#!lua flags=allow-oom
-- Releases what a consumer has pending on one lane: it stays pending, but whoever recovers next may have it at once, and
-- no crash is counted.
--
-- KEYS     1 stream of the lane  2 dead
-- ARGV     1 group  2 consumer  3 how many at most
-- returns  how many were released

local key, dead, group, me = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
redis.call('XLEN', dead)
may('XCLAIM', key, group, RELEASED, '0', '0-1')
may('XADD', dead, '*', 'class', '')

local rows = redis.pcall('XPENDING', key, group, '-', '+', ARGV[3], me)
if rows.err then
    -- No stream or no group: nothing is held there.
    if string.find(rows.err, 'NOGROUP', 1, true) then return 0 end
    error(rows)
end
for i = 1, #rows do set_aside(key, group, RELEASED, rows[i][1], dead) end
return #rows
