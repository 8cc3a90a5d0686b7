#!lua flags=allow-oom
-- Maintains a subscription: records a host's wish, notes the position of its group, so that ensure.lua can recreate it
-- there, and counts what other programs have done.
--
-- KEYS     1 stream  2 redelivery  3 due  4 dead  5 stats  6 timers  7 position  8 wishes
-- ARGV     1 group  2 consumer  3 its wish ('': the same as before)  4 for how long that counts in ms, unless renewed
--          5 pending ids that are noted at most  6 in how many ms a position is noted again
--          7 what the names of heartbeats begin with  8 for how long the wish of a deregistered host counts in ms
-- returns  1 the number of what is agreed on  2 entries left for others  3 strayed, and 4 repeated, counted now
--          5 the id from which the group was moved back ('': it was not)  6 the last id delivered
--          7.. consumer and wish, of each host
--
-- `position` has: last (id delivered), delivered (the same; or, if `cut`, the last of the ids in `pending`), pending
-- (ids), added (entries ever, to the stream), read (by the group, as far as Redis knows), sum (of the settlements), at
-- (when), lost (since when the position to resume at is unknown).

local stream, redelivery, stats, position, wishes = KEYS[1], KEYS[2], KEYS[5], KEYS[7], KEYS[8]
local group, me, wish, ttl, pending_max, every = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

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
    if leave == 'e' and tonumber(till) < now then ended[text] = math.max(ended[text] or 0, till - ARGV[8]) end
    if all[i] == me and wish == '' then wish = text end
end
for i = 1, #all, 2 do
    local till, _, text = string.match(all[i + 1], '^(%d+)(e?) (.*)$')
    -- A dead host with the wish of a host that has deregistered since was replaced by it: its last update came before
    -- that.
    local over = not till or tonumber(till) < now
        or (ended[text] and till - ttl <= ended[text] and redis.call('EXISTS', ARGV[7] .. all[i]) == 0)
    if all[i] ~= me and over then
        redis.call('HDEL', wishes, all[i])
    elseif all[i] ~= me then
        later[#later + 1], later[#later + 2] = all[i], text
    end
end
if wish ~= '' then
    redis.call('HSET', wishes, me, whole(now + ttl) .. ' ' .. wish)
    later[#later + 1], later[#later + 2] = me, wish
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
        'sum', sum_of(stats, KEYS[4]), 'at', whole(now))
    if note.lost then redis.call('HDEL', position, 'lost') end

    local totals = redis.call('HMGET', stats, 'base', 'committed', 'skipped', 'dropped', 'timers', 'strayed', 'repeated')
    local function total(i) return tonumber(totals[i] or '0') or 0 end
    if totals[1] and #redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1) == 0 then
        local gone = total(2) + total(3) + total(4) + total(6) + redis.call('XLEN', KEYS[4])
        local waits = info.pending + redis.call('XLEN', redelivery) + redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[6])
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
local is_quiet = note.last == last and info.pending == 0 and note.pending == '' and note.sum == sum_of(stats, KEYS[4])
local is_young = age >= 0 and age < (is_quiet and 10 * every or every)
if not is_young or set_back ~= '' or note.lost then look() end

return {agreed, left, strayed, repeated, set_back, last, unpack(later)}
