#!lua flags=allow-oom
-- Takes or renews the lease of the elected reclaimer. Also when memory is full: what is reclaimed then may be acked.
--
-- KEYS     1 lease
-- ARGV     1 consumer  2 ttl in ms
-- returns  1 if the consumer has it, 0 if another one has; the server's time in ms

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    cut_lease(KEYS[1], tonumber(ARGV[2]), ARGV[2])
    return {0, whole(clock())}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, whole(clock())}
