#!lua flags=allow-oom
-- Removes a consumer from both queues of a subscription, on each only if nothing is pending there: its entries would be
-- forgotten with it. What it wished counts for a while: the host that follows may be on its way.
--
-- KEYS     1 stream  2 redelivery  3 wishes
-- ARGV     1 group  2 consumer  3 for how long its wish counts in ms
-- returns  on how many queues it is gone

local gone = 0
for i = 1, 2 do
    local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
    if not pending.err and #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
        gone = gone + 1
    end
end
local wish = string.match(redis.call('HGET', KEYS[3], ARGV[2]) or '', '^%d+e? (.*)$')
if wish then redis.call('HSET', KEYS[3], ARGV[2], whole(clock() + ARGV[3]) .. 'e ' .. wish) end
return gone
