#!lua
-- Puts dead letters back on the redelivery queue, each linked to the letter that it was, with attempts and crashes
-- reset to 0. A new body replaces the old one.
--
-- KEYS     dead  redelivery  audit_log  stats
-- ARGV     operator  reason  records_max (in the audit log)  ids_max (in one record)  verb (replay, edit)
--          body (the new one, of edit)  more: ids of dead letters
-- returns  found (how many there were)  done (how many of the ids: the others have no room in this call)

local letters = letters_of(dead, stats)
redis.call('XLEN', redelivery)
may('XADD', redelivery, '*', 'event', '')
may_audit(audit_log)

-- Fields that are not copied from the letter.
local LEFT_OUT = {class = true, text = true, attempts = true, crashes = true, replayed = true}
if verb == 'edit' then LEFT_OUT.event, LEFT_OUT.fields, LEFT_OUT.large, LEFT_OUT.timer = true, true, true, true end

local function record_of(id, fields)
    local record, times = {'attempts', '0', 'crashes', '0'}, 0
    if verb == 'edit' then record[5], record[6] = 'event', body end
    for f = 1, #fields, 2 do
        local name, value = fields[f], fields[f + 1]
        -- What was a timer stays one; what was none does not become one.
        if verb == 'edit' and name == 'timer' then record[5] = 'timer' end
        if name == 'replayed' then times = tonumber(string.match(value, ' (%d+)$')) or 0 end
        if not LEFT_OUT[name] then
            record[#record + 1] = name
            record[#record + 1] = value
        end
    end
    record[#record + 1] = 'replayed'
    record[#record + 1] = id .. ' ' .. whole(times + 1)
    return record
end

local REPLAY_BYTES_MAX = 16777216

local replayed, bytes, done = {}, 0, 0
for i = MORE_ARGS, #ARGV do
    local found = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
    if found then
        redis.call('XADD', redelivery, '*', unpack(record_of(ARGV[i], found[2])))
        redis.call('XDEL', dead, ARGV[i])
        replayed[#replayed + 1] = ARGV[i]
        letters.remove(ARGV[i], found[2])
        for f = 2, #found[2], 2 do bytes = bytes + #found[2][f] end
    end
    done = done + 1
    if bytes >= REPLAY_BYTES_MAX then break end
end
if #replayed > 0 then
    letters.close()
    audit(audit_log, verb, replayed, operator, reason, records_max, ids_max)
end
return {'found', #replayed, 'done', done}
