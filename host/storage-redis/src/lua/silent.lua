#!lua flags=allow-oom
-- Finds hosts without a heartbeat. Also when memory is full: what they have pending may be what can be acked.
--
-- KEYS     heartbeats
-- ARGV     1 the longest that a heartbeat may last, in ms
-- returns  for each of them 1 if it has expired, 0 if it has not

local silent = {}
for i = 1, #KEYS do silent[i] = lives(KEYS[i], tonumber(ARGV[1])) and 0 or 1 end
return silent
