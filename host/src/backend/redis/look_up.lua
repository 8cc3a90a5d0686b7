#!lua flags=no-writes
-- Reads the inbox for some events and the state of some keys.
--
-- KEYS     1 base of the inbox  2.. state keys
-- ARGV     1 inbox window in ms  2.. event ids
-- returns  the payload hash of each id or nil; all fields of each state

local ids, states = {}, {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
for i = 2, #KEYS do states[i - 1] = redis.call('HGETALL', KEYS[i]) end

local seen = {}
if #ids > 0 then seen = recall(KEYS[1], tonumber(ARGV[1]), clock(), ids) end
-- A hole would end the list.
for i = 1, #ids do seen[i] = seen[i] or false end
return {seen, states}
