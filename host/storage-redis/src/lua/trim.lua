#!lua flags=allow-oom
-- Removes old entries from a stream: those too many or too old. Never one that a group has not finished, unless it is
-- told to hold to the bounds whatever happens; then what is lost to a group is counted, and counted for it as dropped.
--
-- What waits in `redelivery` or `due` of a handler is a copy: it needs nothing from the stream. Nor does a delivery in
-- flight on a live host. If that host dies, its deliveries without a body become dead letters (see takeover.lua).
-- Whole nodes (100 entries, or 4 kB) go at almost no cost, and `~` takes only those. What is then left to be removed
-- lies within one node, so the exact trim after it is cheap too.
--
-- KEYS     stream
-- ARGV     length_max (entries; '': any number)  age_max_ms ('': any age)  drop (1: what is not finished, too)
--          stats_prefix (what the names of the groups' counters begin with)  caller_ms (the caller's own time)
--          more: groups that have to exist: else nothing is removed, for one that is lost needs what it has not
--          finished
-- returns  removed (how many; there may be more to remove if it is many)  lost (how many of them a group had not
--          finished)  length  oldest_ms (age of the oldest; -1: none)  held (how many stay over the bounds for a group)

local length_max, age_max, drop = tonumber(length_max), tonumber(age_max_ms), drop == '1'
-- A call is not to hold up the server for long.
local ENTRIES_MAX, NODE_MAX, PENDING_MAX = 100000, 1000, 10000
local LAST = '18446744073709551615-18446744073709551615'

-- The next possible id; or the id itself where Lua cannot count that far, which only keeps one entry more.
local function after(id)
    local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
    if #seq > 15 then return id end
    return ms .. '-' .. whole(seq + 1)
end

local function first_id()
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    return first and first[1]
end

local now = clock()
-- Two clocks have to agree before what is not finished is removed for its age: one of them may have been set wrongly.
if drop and math.abs(now - caller_ms) > STEP_MS then age_max = nil end

local function answer(removed, lost, length, oldest_ms, held)
    return {'removed', removed, 'lost', lost, 'length', length, 'oldest_ms', oldest_ms, 'held', held}
end
if redis.call('EXISTS', stream) == 0 then return answer(0, 0, 0, -1, 0) end
for i = MORE_ARGS, #ARGV do
    if not group_info(stream, ARGV[i]) then return answer(0, 0, redis.call('XLEN', stream), -1, 0) end
end

-- What each group needs: `unread`, the first id that it has not been given, and all that is pending before it. A group
-- without counters belongs to another program. A stream without readers has no groups.
local groups, needed = {}, LAST
for _, list in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = named(list)
    local name = string.gsub(info.name, '[%%:]', {['%'] = '%25', [':'] = '%3a'})
    local group = {name = info.name, unread = after(info['last-delivered-id']), pending = info.pending, lost = 0}
    local needs = group.unread
    if group.pending > 0 then
        local first = redis.call('XPENDING', stream, group.name)[2]
        if before(first, needs) then needs = first end
    end
    if before(needs, needed) then needed = needs end
    if drop and redis.call('HEXISTS', stats_prefix .. name, 'base') == 1 then
        group.counters = stats_prefix .. name
        may('HINCRBY', group.counters, 'dropped', '1')
        if not tonumber(redis.call('HGET', group.counters, 'dropped') or '0') then
            error({err = 'ERR ' .. group.counters .. ': its field dropped is no number'})
        end
    end
    groups[#groups + 1] = group
end
table.sort(groups, function(a, b) return before(a.unread, b.unread) end)

local removed, oldest_before = 0, drop and first_id()

-- Removes at most `max` entries before an id. Answers how many, and whether there are none left before it.
local function cut(id, max)
    if max <= 0 then return 0, false end
    local gone = redis.call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', max)
    local left = math.min(max - gone, NODE_MAX)
    local oldest = left > 0 and redis.call('XRANGE', stream, '-', '(' .. id, 'COUNT', left) or {}
    if #oldest > 0 then gone = gone + redis.call('XTRIM', stream, 'MINID', '=', after(oldest[#oldest][1])) end
    removed = removed + gone
    return gone, #redis.call('XRANGE', stream, '-', '(' .. id, 'COUNT', 1) == 0
end

-- The same, but not past what some group needs; or else from one group's reading position to the next: the groups
-- behind it have lost what goes.
local function trim(id, max)
    if not drop then return cut(before(needed, id) and needed or id, max) end
    for at = 1, #groups + 1 do
        local stop = groups[at] and before(groups[at].unread, id) and groups[at].unread or id
        local gone, done = cut(stop, max)
        for behind = 1, at - 1 do groups[behind].lost = groups[behind].lost + gone end
        max = max - gone
        if not done or stop == id then return end
    end
end

if length_max then trim(LAST, math.min(redis.call('XLEN', stream) - length_max, ENTRIES_MAX)) end
local cut_ms = age_max and math.max(0, now - age_max)
if age_max and cut_ms > 0 then trim(whole(cut_ms) .. '-0', ENTRIES_MAX - removed) end

-- An entry that several groups lose is one that is lost. The first group to read is the one that has lost the most.
local lost, first = groups[1] and groups[1].lost or 0, first_id()
if drop and removed > 0 and groups[1] then
    local upto = groups[1].unread
    if first and before(first, upto) then upto = first end
    local counted = {}
    for _, group in ipairs(groups) do
        if group.lost > 0 and group.counters then redis.call('HINCRBY', group.counters, 'dropped', whole(group.lost)) end
        local rows = {}
        if group.pending > 0 then
            rows = redis.call('XPENDING', stream, group.name, oldest_before, '(' .. upto, PENDING_MAX)
        end
        for i = 1, #rows do
            if not counted[rows[i][1]] then lost = lost + 1 end
            counted[rows[i][1]] = true
        end
    end
end

local length = redis.call('XLEN', stream)
if not first then return answer(removed, lost, length, -1, 0) end

-- What stays over the bounds because a group needs it. How many are too old is judged by the times of the first and
-- the last entry, as if they had come evenly: counting would mean to read them all.
local first_ms, held = tonumber(string.match(first, '^%d+')), 0
if not drop and not before(first, needed) then
    held = length_max and math.max(0, length - length_max) or 0
    if age_max and first_ms < cut_ms then
        local last_ms = tonumber(string.match(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][1], '^%d+'))
        local share = last_ms < cut_ms and 1 or (cut_ms - first_ms) / (last_ms - first_ms)
        held = math.max(held, 1, math.floor(length * share))
    end
end
return answer(removed, lost, length, math.max(0, now - first_ms), held)
