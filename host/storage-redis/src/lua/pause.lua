#!lua flags=allow-oom
-- Pauses or resumes consumption of a subscription on all hosts. Changes nothing if it is so already.
--
-- KEYS     stream  stats  audit_log
-- ARGV     operator  reason  records_max (in the audit log)  ids_max (in one record)  group  verb (pause, resume)
-- returns  1 if it was changed, 0 if it was so

if not group_info(stream, group) then error({err = 'NOGROUP no group ' .. group .. ' on ' .. stream}) end
local paused = redis.call('HGET', stats, 'paused')
may('HSET', stats, 'paused', '1')
may('HDEL', stats, 'paused')
may_audit(audit_log)

if (verb == 'pause') == (paused == '1') then return 0 end
if verb == 'pause' then
    redis.call('HSET', stats, 'paused', '1')
else
    redis.call('HDEL', stats, 'paused')
end
audit(audit_log, verb, {}, operator, reason, records_max, ids_max)
return 1
