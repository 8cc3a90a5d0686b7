#!lua flags=allow-oom
-- Removes a consumer from both queues of a subscription, on each only if nothing is pending there: its pending entries
-- would be lost with it. Its wish counts for a while: the host that replaces it may be starting.
--
-- KEYS     stream  redelivery  wishes
-- ARGV     group  consumer  wish_ttl_ms (for how long its wish counts)
-- returns  from how many queues it was removed

local gone = 0
for _, queue in ipairs({stream, redelivery}) do
    local pending = redis.pcall('XPENDING', queue, group, '-', '+', 1, consumer)
    if not pending.err and #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', queue, group, consumer)
        gone = gone + 1
    end
end
local wish = string.match(redis.call('HGET', wishes, consumer) or '', '^%d+e? (.*)$')
if wish then redis.call('HSET', wishes, consumer, whole(clock() + wish_ttl_ms) .. 'e ' .. wish) end
return gone
