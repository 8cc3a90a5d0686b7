#!lua flags=allow-oom
-- Removes a consumer from both queues of a subscription, on each only if nothing is pending there: its pending entries
-- would be lost with it. Its wish counts for a while: the host that replaces it may be starting.
--
-- KEYS     1 stream  2 redelivery  3 wishes
-- ARGV     1 group  2 consumer  3 for how long its wish counts in ms
-- returns  from how many queues it was removed

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
