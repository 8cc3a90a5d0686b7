#!lua flags=allow-oom
-- Removes dead letters for good, and counts them as dropped.
--
-- KEYS     dead  stats  audit_log
-- ARGV     operator  reason  records_max (in the audit log)  ids_max (in one record)  more: ids of dead letters
-- returns  found (how many there were)  done (how many of the ids: the others have no room in this call)

local letters = letters_of(dead, stats)
may_audit(audit_log)

local DROP_BYTES_MAX = 16777216

local found, known, bytes, done = {}, {}, 0, 0
for i = MORE_ARGS, #ARGV do
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
    audit(audit_log, 'drop', found, operator, reason, records_max, ids_max)
    call_with(found, 1, #found, 'XDEL', dead)
    letters.close()
end
return {'found', #found, 'done', done}
