#!lua flags=allow-oom
-- Removes old entries from a stream: those too many or too old, but never one that a group has not finished.
--
-- What waits in `again` or `due` of a handler is a copy: it needs nothing from the stream.
-- Whole nodes (100 entries, or 4 kB) go at almost no cost, and `~` takes only those. What is then left to be removed
-- lies within one node, so the exact cut after it is cheap too.
--
-- KEYS     1 stream
-- ARGV     1 entries at most ('' = any number)  2 age in ms at most ('' = any age)
-- returns  how many were removed; there may be more to remove if it is many

local stream, length_max, age_max = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
-- A call is not to hold up the server for long.
local ENTRIES_MAX = 100000

-- Ids are two numbers of up to 64 bits, more than Lua's numbers hold: they are compared as text.
local function less(a, b)
    if #a ~= #b then return #a < #b end
    return a < b
end

local function before(a, b)
    local a_ms, a_seq = string.match(a, '^(%d+)%-(%d+)$')
    local b_ms, b_seq = string.match(b, '^(%d+)%-(%d+)$')
    return less(a_ms, b_ms) or (a_ms == b_ms and less(a_seq, b_seq))
end

-- The next possible id; or the id itself where Lua cannot count that far, which only keeps one entry more.
local function after(id)
    local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
    if #seq > 15 then return id end
    return ms .. '-' .. whole(seq + 1)
end

-- The first id that some group still needs. A stream that nobody reads has none.
local function first_needed()
    local first = '18446744073709551615-18446744073709551615'
    for _, list in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        local group = named(list)
        local needed = after(group['last-delivered-id'])
        if group.pending > 0 then needed = redis.call('XPENDING', stream, group.name)[2] end
        if before(needed, first) then first = needed end
    end
    return first
end

if redis.call('EXISTS', stream) == 0 then return 0 end
local needed, removed = first_needed(), 0

local excess = length_max and redis.call('XLEN', stream) - length_max or 0
if excess > 0 then
    removed = redis.call('XTRIM', stream, 'MINID', '~', needed, 'LIMIT', math.min(excess, ENTRIES_MAX))
    local left = removed < ENTRIES_MAX / 2 and math.min(excess - removed, 1000) or 0
    local oldest = left > 0 and redis.call('XRANGE', stream, '-', '(' .. needed, 'COUNT', left) or {}
    if #oldest > 0 then
        removed = removed + redis.call('XTRIM', stream, 'MINID', '=', after(oldest[#oldest][1]))
    end
end

if age_max then
    local cut = whole(math.max(0, clock() - age_max)) .. '-0'
    if before(needed, cut) then cut = needed end
    local nodes = redis.call('XTRIM', stream, 'MINID', '~', cut, 'LIMIT', ENTRIES_MAX)
    removed = removed + nodes
    if nodes < ENTRIES_MAX / 2 then
        removed = removed + redis.call('XTRIM', stream, 'MINID', '=', cut)
    end
end
return removed
