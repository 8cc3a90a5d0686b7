#!lua flags=allow-oom
-- Releases what a consumer has pending on one queue: it stays pending, but the next recovery may reclaim it at once,
-- and no crash is counted.
--
-- KEYS     1 stream of the queue  2 dead  3 stats
-- ARGV     1 group  2 consumer  3 how many at most  4 dead letters at most, and their bytes
-- returns  how many were released

local key, group, me = KEYS[1], ARGV[1], ARGV[2]
local letters = letters_of(KEYS[2], KEYS[3], ARGV[4])
may('XCLAIM', key, group, RELEASED, '0', '0-1')

local rows = redis.pcall('XPENDING', key, group, '-', '+', ARGV[3], me)
if rows.err then
    -- No stream or no group: nothing is pending there.
    if string.find(rows.err, 'NOGROUP', 1, true) then return 0 end
    error(rows)
end
for i = 1, #rows do
    if not set_aside(key, group, RELEASED, rows[i][1]) then letters.add_without_body(rows[i][1]) end
end
letters.close()
return #rows
