#!lua flags=allow-oom
-- Releases what a consumer has pending on one queue: it stays pending, but the next recovery may reclaim it at once,
-- and no crash is counted.
--
-- KEYS     queue (its stream)  dead  stats
-- ARGV     group  consumer  max (how many)  letter_bounds (dead letters at most, and their bytes)
-- returns  how many were released

local letters = letters_of(dead, stats, letter_bounds)
may('XCLAIM', queue, group, RELEASED, '0', '0-1')

local rows = redis.pcall('XPENDING', queue, group, '-', '+', max, consumer)
if rows.err then
    -- No stream or no group: nothing is pending there.
    if string.find(rows.err, 'NOGROUP', 1, true) then return 0 end
    error(rows)
end
for i = 1, #rows do
    if not set_aside(queue, group, RELEASED, rows[i][1]) then letters.add_without_body(rows[i][1]) end
end
letters.close()
return #rows
