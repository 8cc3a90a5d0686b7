#!lua flags=allow-oom
-- Removes dead letters for good, and books them as dropped.
--
-- KEYS     1 dead  2 stats  3 audit
-- ARGV     1 who  2 why  3 audit records at most  4 ids in one of them at most  5.. ids of dead letters
-- returns  how many there were

local dead, stats, records = KEYS[1], KEYS[2], KEYS[3]
redis.call('XLEN', dead)
redis.call('HLEN', stats)
may('XDEL', dead, '0-1')
may('HINCRBY', stats, 'dropped', '1')
may_audit(records)

local found, known = {}, {}
for i = 5, #ARGV do
    local id = ARGV[i]
    if not known[id] and #redis.call('XRANGE', dead, id, id) > 0 then
        known[id] = true
        found[#found + 1] = id
    end
end
if #found > 0 then
    -- The counter first: it alone could still fail, on a value that is no number.
    redis.call('HINCRBY', stats, 'dropped', #found)
    audit(records, 'drop', found, act_of(ARGV))
    call_with(found, 1, #found, 'XDEL', dead)
end
return #found
