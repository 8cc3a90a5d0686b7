#!lua flags=allow-oom
-- Writes a host's heartbeat, with its report. Also when memory is full: a live host must not be taken for dead.
--
-- KEYS     1 heartbeat  2 hosts
-- ARGV     1 consumer  2 ttl in ms  3 report
-- returns  1

local beat, hosts = KEYS[1], KEYS[2]
local consumer, ttl, note = ARGV[1], ARGV[2], ARGV[3]

local now = clock()
may('SET', beat, note, 'PX', ttl)
may('ZADD', hosts, '0', consumer)
may('ZREMRANGEBYSCORE', hosts, '-inf', '0')
redis.call('ZADD', hosts, whole(now + ttl), consumer)
redis.call('ZREMRANGEBYSCORE', hosts, '-inf', whole(now - 1))
redis.call('SET', beat, note, 'PX', ttl)
return 1
