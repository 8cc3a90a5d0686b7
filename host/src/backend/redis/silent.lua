#!lua flags=allow-oom
-- Which hosts do not live. Also when memory is full: what they left may be what can be acked.
--
-- KEYS     heartbeats
-- ARGV     1 the longest that a heartbeat may last, in ms
-- returns  for each of them 1 if it has run out, 0 if it has not

local silent = {}
for i = 1, #KEYS do silent[i] = lives(KEYS[i], tonumber(ARGV[1])) and 0 or 1 end
return silent
