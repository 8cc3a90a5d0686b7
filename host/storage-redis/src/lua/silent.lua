#!lua flags=allow-oom
-- Finds hosts without a heartbeat. Also when memory is full: what they have pending may be what can be acked.
--
-- KEYS     more: heartbeats
-- ARGV     longest_ms (that a heartbeat may last)
-- returns  for each of them 1 if it has expired, 0 if it has not

local silent = {}
for i = MORE_KEYS, #KEYS do silent[i] = lives(KEYS[i], tonumber(longest_ms)) and 0 or 1 end
return silent
