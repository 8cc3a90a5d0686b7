#!lua flags=allow-oom
-- Maintains a subscription: records a host's wish, notes the position of its group, so that ensure.lua can recreate it
-- there, and counts what other programs have done.
--
-- KEYS     stream  redelivery  due  dead  stats  timers  position  wishes
-- ARGV     group  consumer  wish ('': the same as before)  ttl_ms (for how long that counts, unless renewed)
--          pending_max (ids that are noted)  every_ms (in how many a position is noted again)
--          ended_ttl_ms (for how long the wish of a deregistered host counts)
--          more: hosts in `replaced` of the last answer that have no heartbeat
-- returns  agreed (the number of what is agreed on)  left (entries, for others)  strayed  repeated (counted now)
--          set_back (the id from which the group was moved back; '': it was not)  last (id delivered)
--          replaced (hosts that another one has replaced, if they have no heartbeat; that is in another slot)
--          wishes (consumer and wish, of each host)
--
-- `position` has: last (id delivered), delivered (the same; or, if `cut`, the last of the ids in `pending`), pending
-- (ids), added (entries ever, to the stream), read (by the group, as far as Redis knows), sum (of the settlements), at
-- (when), lost (since when the position to resume at is unknown).

local pending_max, every = tonumber(pending_max), tonumber(every_ms)
local silent = {}
for i = MORE_ARGS, #ARGV do silent[ARGV[i]] = true end

local info = group_info(stream, group)
if not info then error({err = 'NOGROUP no group ' .. group .. ' on ' .. stream}) end
local all, note = redis.call('HGETALL', wishes), named(redis.call('HGETALL', position))
-- What is no id was not written here.
if note.last and not string.match(note.last, '^%d+%-%d+$') then note = {} end
may('HSET', wishes, '', '')
may('HDEL', wishes, '')
may('HSET', position, '', '')
may('HINCRBY', stats, 'agreed', '1')
local now = clock()

-- 1. Wishes. Other wishes than before make another agreement.
local function distinct(some)
    local list, known = {}, {}
    for i = 2, #some, 2 do
        if not known[some[i]] then list[#list + 1], known[some[i]] = some[i], true end
    end
    table.sort(list)
    return table.concat(list, '\n')
end
local earlier, later, ended = {}, {}, {}
for i = 1, #all, 2 do
    local till, leave, text = string.match(all[i + 1], '^(%d+)(e?) (.*)$')
    earlier[#earlier + 1], earlier[#earlier + 2] = all[i], text or ''
    if leave == 'e' and tonumber(till) < now then ended[text] = math.max(ended[text] or 0, till - ended_ttl_ms) end
    if all[i] == consumer and wish == '' then wish = text end
end
-- The wish that replaced a host stays until it is known whether that host has a heartbeat.
local replaced, in_doubt, over = {}, {}, {}
for i = 1, #all, 2 do
    local till, leave, text = string.match(all[i + 1], '^(%d+)(e?) (.*)$')
    -- A dead host with the wish of a host that has deregistered since was replaced by it: its last update came before
    -- that.
    local expired = not till or tonumber(till) < now
    local is_replaced = not expired and ended[text] and till - ttl_ms <= ended[text]
    if all[i] ~= consumer and (expired or (is_replaced and silent[all[i]])) then
        over[#over + 1] = {all[i], leave == 'e' and text}
    elseif all[i] ~= consumer then
        if is_replaced then replaced[#replaced + 1], in_doubt[text] = all[i], true end
        later[#later + 1], later[#later + 2] = all[i], text
    end
end
for _, row in ipairs(over) do
    if not in_doubt[row[2]] then redis.call('HDEL', wishes, row[1]) end
end
if wish ~= '' then
    redis.call('HSET', wishes, consumer, whole(now + ttl_ms) .. ' ' .. wish)
    later[#later + 1], later[#later + 2] = consumer, wish
end
local agreed = redis.call('HGET', stats, 'agreed') or '0'
if distinct(earlier) ~= distinct(later) then agreed = whole(redis.call('HINCRBY', stats, 'agreed', 1)) end

-- 2. What was left for others.
local left = 0
for _, holder in ipairs(redis.call('XPENDING', stream, group)[4] or {}) do
    if holder[1] == ELSEWHERE then left = tonumber(holder[2]) end
end

-- 3. The position, and what other programs have done: when all is fetched, the counters have to account for every
-- entry, and all of this is one moment. One host at a time is enough.
local last, set_back, strayed, repeated = info['last-delivered-id'], '', 0, 0
if note.last and before(last, note.last) then set_back = note.last end

local function look()
    local added = added_to(stream, info)
    local ids, delivered, cut = {}, last, '0'
    local rows = info.pending > 0 and redis.call('XPENDING', stream, group, '-', '+', pending_max + 1) or {}
    if #rows > pending_max then
        rows[#rows] = nil
        cut, delivered = '1', rows[#rows][1]
    end
    for i = 1, #rows do ids[i] = rows[i][1] end
    redis.call('HSET', position, 'last', last, 'delivered', delivered, 'pending', table.concat(ids, ' '), 'cut', cut,
        'added', whole(added), 'read', cut == '0' and info['entries-read'] or '',
        'sum', sum_of(stats, dead), 'at', whole(now))
    if note.lost then redis.call('HDEL', position, 'lost') end

    local totals = redis.call('HMGET', stats, 'base', 'committed', 'skipped', 'dropped', 'timers', 'strayed', 'repeated')
    local function total(i) return tonumber(totals[i] or '0') or 0 end
    if totals[1] and #redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1) == 0 then
        local gone = total(2) + total(3) + total(4) + total(6) + redis.call('XLEN', dead)
        local waits = info.pending + redis.call('XLEN', redelivery) + redis.call('ZCARD', due) + redis.call('ZCARD', timers)
        local off = added - total(1) + total(5) + total(7) - gone - waits
        if off ~= 0 then
            -- Another program may have set how far the group is (ENTRIESREAD): that is verified first.
            off = off - added + named(redis.call('XINFO', 'STREAM', stream))['entries-added']
        end
        if off > 0 then strayed = off else repeated = -off end
        if strayed > 0 then redis.call('HINCRBY', stats, 'strayed', strayed) end
        if repeated > 0 then redis.call('HINCRBY', stats, 'repeated', repeated) end
    end
end

local age = now - (tonumber(note.at or '') or -math.huge)
local is_quiet = note.last == last and info.pending == 0 and note.pending == '' and note.sum == sum_of(stats, dead)
local is_young = age >= 0 and age < (is_quiet and 10 * every or every)
if not is_young or set_back ~= '' or note.lost then look() end

return {
    'agreed', agreed, 'left', left, 'strayed', strayed, 'repeated', repeated, 'set_back', set_back, 'last', last,
    'replaced', replaced, 'wishes', later,
}
