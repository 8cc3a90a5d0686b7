#!lua
-- Moves retries and timers that are due to the lane `again`: no more bytes at once than a script may hold, but one in any
-- case. What is left is due at once.
--
-- KEYS     1 again  2 due  3 bodies of what is due  4 timers
-- ARGV     1 how many at most
-- returns  how many were moved, and in how many ms the next one is due (-1: none waits)

local PROMOTE_BYTES_MAX = 16777216

local again, bodies, max = KEYS[1], KEYS[3], tonumber(ARGV[1])
local now, moved, bytes, next_in = clock(), 0, 0, -1

local function move(waiting)
    local names = redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, max - moved)
    if #names == 0 then return end
    redis.call('XLEN', again)
    may('XADD', again, '*', 'event', '')
    may('ZREM', waiting, '')
    may('HDEL', bodies, '')
    local records, count = {}, 0
    for i = 1, #names do
        local body = redis.call('HGET', bodies, names[i])
        bytes = bytes + (body and #body or 0)
        if bytes > PROMOTE_BYTES_MAX and moved + count > 0 then break end
        if body then records[#records + 1] = cmsgpack.unpack(body) end
        count = i
    end
    for i = 1, #records do redis.call('XADD', again, '*', unpack(records[i])) end
    call_with(names, 1, count, 'ZREM', waiting)
    call_with(names, 1, count, 'HDEL', bodies)
    moved = moved + count
end

for _, waiting in ipairs({KEYS[2], KEYS[4]}) do
    move(waiting)
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    local left = first[2] and math.max(0, first[2] - now)
    if left and (next_in < 0 or left < next_in) then next_in = left end
end
return {moved, next_in}
