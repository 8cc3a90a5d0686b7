#!lua flags=allow-oom
-- Removes a consumer from both lanes of a source, on each only if nothing is pending there: its entries would be
-- forgotten with it. What it wished counts for a while: the host that follows may be on its way.
--
-- KEYS     1 stream  2 again  3 wishes
-- ARGV     1 group  2 consumer  3 for how long its wish counts in ms  4 what the names of heartbeats begin with
-- returns  on how many lanes it is gone

local gone = 0
for i = 1, 2 do
    local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
    if not pending.err and #pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
        gone = gone + 1
    end
end
-- A host that died with the same wish has been followed by this one.
local wishes, till = redis.call('HGETALL', KEYS[3]), whole(clock() + ARGV[3])
local mine = string.match(named(wishes)[ARGV[2]] or '', '^%d+ (.*)$')
for i = 1, mine and #wishes or 0, 2 do
    local same = string.match(wishes[i + 1], '^%d+ (.*)$') == mine
    if wishes[i] == ARGV[2] or (same and redis.call('EXISTS', ARGV[4] .. wishes[i]) == 0) then
        redis.call('HSET', KEYS[3], wishes[i], till .. ' ' .. mine)
    end
end
return gone
