#!lua flags=allow-oom
-- Pauses or resumes consumption of a subscription on all hosts. Changes nothing if it is so already.
--
-- KEYS     1 stream  2 stats  3 audit
-- ARGV     1 operator  2 reason  3 audit records at most  4 ids in one of them at most  5 group  6 pause, resume
-- returns  1 if it was changed, 0 if it was so

local stream, stats, records = KEYS[1], KEYS[2], KEYS[3]
local group, verb = ARGV[5], ARGV[6]
if not group_info(stream, group) then error({err = 'NOGROUP no group ' .. group .. ' on ' .. stream}) end
local paused = redis.call('HGET', stats, 'paused')
may('HSET', stats, 'paused', '1')
may('HDEL', stats, 'paused')
may_audit(records)

if (verb == 'pause') == (paused == '1') then return 0 end
if verb == 'pause' then
    redis.call('HSET', stats, 'paused', '1')
else
    redis.call('HDEL', stats, 'paused')
end
audit(records, verb, {}, act_of(ARGV))
return 1
