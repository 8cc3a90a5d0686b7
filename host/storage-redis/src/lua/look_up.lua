#!lua flags=no-writes
-- Reads the inbox for some events and the state of some keys.
--
-- KEYS     inbox (base of its buckets)  more: state keys
-- ARGV     window_ms (of the inbox)  bytes_max (of state, after which no further key is read)  more: event ids
-- returns  the payload hash of each id or nil; all fields of each state that was read

local ids, states = {}, {}
for i = MORE_ARGS, #ARGV do ids[#ids + 1] = ARGV[i] end
local left = tonumber(bytes_max)
for i = MORE_KEYS, #KEYS do
    if left < 0 then break end
    local fields = redis.call('HGETALL', KEYS[i])
    for f = 1, #fields do left = left - #fields[f] end
    states[#states + 1] = fields
end

local seen = {}
if #ids > 0 then seen = recall(inbox, tonumber(window_ms), clock(), ids) end
-- A hole would end the list.
for i = 1, #ids do seen[i] = seen[i] or false end
return {seen, states}
