#!lua flags=allow-oom
-- Removes dead letters for good, and counts them as dropped.
--
-- KEYS     1 dead  2 stats  3 audit
-- ARGV     1 operator  2 reason  3 audit records at most  4 ids in one of them at most  5.. ids of dead letters
-- returns  how many there were, and how many of the ids are done: the others have no room in this call

local dead, stats, records = KEYS[1], KEYS[2], KEYS[3]
local letters = letters_of(dead, stats)
may_audit(records)

local DROP_BYTES_MAX = 16777216

local found, known, bytes, done = {}, {}, 0, 0
for i = 5, #ARGV do
    local id = ARGV[i]
    local letter = not known[id] and redis.call('XRANGE', dead, id, id)[1]
    if letter then
        known[id] = true
        found[#found + 1] = id
        letters.remove(id, letter[2])
        for f = 2, #letter[2], 2 do bytes = bytes + #letter[2][f] end
    end
    done = done + 1
    if bytes >= DROP_BYTES_MAX then break end
end
if #found > 0 then
    redis.call('HINCRBY', stats, 'dropped', #found)
    audit(records, 'drop', found, act_of(ARGV))
    call_with(found, 1, #found, 'XDEL', dead)
    letters.close()
end
return {#found, done}
