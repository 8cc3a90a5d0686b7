#!lua flags=allow-oom
-- Writes a host's heartbeat, with its report. Also when memory is full: a live host must not be taken for dead.
--
-- KEYS     heartbeat  hosts
-- ARGV     consumer  ttl_ms  report
-- returns  1

local now = clock()
may('SET', heartbeat, report, 'PX', ttl_ms)
may('ZADD', hosts, '0', consumer)
may('ZREMRANGEBYSCORE', hosts, '-inf', '0')
redis.call('ZADD', hosts, whole(now + ttl_ms), consumer)
redis.call('ZREMRANGEBYSCORE', hosts, '-inf', whole(now - 1))
redis.call('SET', heartbeat, report, 'PX', ttl_ms)
return 1
