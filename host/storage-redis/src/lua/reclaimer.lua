#!lua flags=allow-oom
-- Takes or renews the lease of the elected reclaimer. Also when memory is full: what is reclaimed then may be acked.
--
-- KEYS     reclaimer (the lease)
-- ARGV     consumer  ttl_ms
-- returns  elected (1 if the consumer has it, 0 if another one has)  now_ms (the server's time)

local holder = redis.call('GET', reclaimer)
if holder and holder ~= consumer then
    cut_lease(reclaimer, tonumber(ttl_ms), ttl_ms)
    return {'elected', 0, 'now_ms', whole(clock())}
end
redis.call('SET', reclaimer, consumer, 'PX', ttl_ms)
return {'elected', 1, 'now_ms', whole(clock())}
