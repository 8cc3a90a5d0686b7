#!lua flags=no-writes
-- Reads the inbox for some events and the state of some keys.
--
-- KEYS     1 base of the inbox  2.. state keys
-- ARGV     1 inbox window in ms  2 bytes of state after which no further key is read  3.. event ids
-- returns  the payload hash of each id or nil; all fields of each state that was read

local ids, states = {}, {}
for i = 3, #ARGV do ids[i - 2] = ARGV[i] end
local left = tonumber(ARGV[2])
for i = 2, #KEYS do
  if left < 0 then break end
  local fields = redis.call('HGETALL', KEYS[i])
  for f = 1, #fields do left = left - #fields[f] end
  states[i - 1] = fields
end

local seen = {}
if #ids > 0 then seen = recall(KEYS[1], tonumber(ARGV[1]), clock(), ids) end
-- A hole would end the list.
for i = 1, #ids do seen[i] = seen[i] or false end
return {seen, states}
