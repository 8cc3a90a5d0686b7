#!lua flags=allow-oom
-- Removes a consumer from both lanes of a source, on each only if nothing is pending there: its entries would be
-- forgotten with it.
--
-- KEYS     1 stream  2 again
-- ARGV     1 group  2 consumer
-- returns  on how many lanes it is gone

local gone = 0
for i = 1, 2 do
    local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
    if not pending.err and #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
        gone = gone + 1
    end
end
return gone
