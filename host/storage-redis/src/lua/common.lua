-- Shared helpers, which stand before each script.

-- Lua's stack holds some 8000 values: longer argument lists go in pieces (of even length, for pairs).
local PIECE = 1000

-- Runs a command with list[first..last] as its last arguments, after `group` if there is one.
local function call_with(list, first, last, command, key, group)
    for from = first, last, PIECE do
        local to = math.min(from + PIECE - 1, last)
        if group then
            redis.call(command, key, group, unpack(list, from, to))
        else
            redis.call(command, key, unpack(list, from, to))
        end
    end
end

-- Lua writes large numbers as 1.7e+12; Redis wants all their digits.
local function whole(number)
    return string.format('%.0f', number)
end

-- The server's clock in milliseconds. Scripts ask once, so that one step has one time.
local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A change of the clock by more than this against the time that has passed is a step: the clock was set, or another
-- server is the primary now. Longer than a command can be on its way twice.
local STEP_MS = 60000

-- The steady clock of a subscription: the server's, with its steps taken out. Delayed entries wait for their own delay
-- by it, however the server's clock is set meanwhile. It never goes back; it follows a step forward only if no host
-- observed the step (see promote.lua). `clock` of the counters holds `<ms>:<ms>`: the offset to subtract from the
-- server's time, and the latest time returned. Returns the time and the offset; then the latest time and the offset
-- before.
local function steady(stats, now)
    local before, latest = string.match(redis.call('HGET', stats, 'clock') or '', '^(-?%d+):(%d+)$')
    before, latest = tonumber(before) or 0, tonumber(latest) or 0
    local off = math.min(before, now - latest)
    return now - off, off, latest, before
end

local function keep_steady(stats, time, off)
    redis.call('HSET', stats, 'clock', whole(off) .. ':' .. whole(time))
end

-- A lease that ends later than `longest` from now was taken before the clock was set back: it is shortened to `to`, in
-- which a live holder renews it. Returns whether it is held at all.
local function cut_lease(key, longest, to)
    local left = redis.call('PTTL', key)
    if left > longest then redis.call('PEXPIRE', key, to) end
    return left ~= -2
end

local HEARTBEAT_LEFT_MS = 10000
local function lives(heartbeat, longest)
    return cut_lease(heartbeat, longest, HEARTBEAT_LEFT_MS)
end

-- Raises an error if the user that runs this script may not run a command. Scripts ask before they write anything.
local function may(...)
    if not redis.acl_check_cmd(...) then
        error({err = 'NOPERM the command ' .. select(1, ...) .. ' is not allowed on ' .. select(2, ...)})
    end
end

-- Makes a table of names from a list of names and values in turn.
local function named(list)
    local table = {}
    for i = 1, #list, 2 do table[list[i]] = list[i + 1] end
    return table
end

-- What XINFO GROUPS reports of one group of a stream; nil if there is no such group or stream.
local function group_info(key, group)
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if groups.err and not string.find(groups.err, 'no such key', 1, true) then error(groups) end
    for i = 1, #groups do
        local info = named(groups[i])
        if info.name == group then return info end
    end
    return nil
end

-- How many entries were ever added to a stream, by XINFO GROUPS of one of its groups. XINFO STREAM would also copy the
-- first and the last entry, which may be large: it is used only where Redis does not know how far the group is.
local function added_to(stream, info)
    -- An empty stream has nothing to copy.
    if info['entries-read'] and info.lag and redis.call('XLEN', stream) > 0 then return info['entries-read'] + info.lag end
    return named(redis.call('XINFO', 'STREAM', stream))['entries-added']
end

-- Placeholder consumers: entries pending under them are in flight on no host. No host can have such a name.
local RELEASED, QUARANTINE, ELSEWHERE = '(released)', '(quarantine)', '(elsewhere)'

-- What `crashes` holds of a delivery: how many hosts crashed while processing it, when the last one did (ms), and `a`
-- while it is run alone.
local function read_crashes(text)
    local times, at, alone = string.match(text or '', '^(%d+):?(%d*):?(a?)$')
    return tonumber(times) or 0, tonumber(at) or 0, alone == 'a'
end

local function write_crashes(times, at, alone)
    return whole(times) .. ':' .. whole(at) .. (alone and ':a' or '')
end

-- Moves a pending entry to a placeholder consumer. XCLAIM drops an entry that was deleted: then the result is false,
-- and the caller has to write a dead letter.
local function set_aside(key, group, nobody, id)
    return #redis.call('XCLAIM', key, group, nobody, 0, id, 'JUSTID') > 0
end

-- An inbox is a hash of event id -> payload hash for each time window, named `<base>:<number of the window>`. `<base>`
-- itself lists those that are there: number -> window in ms. All that are listed are read, whatever the clock and the
-- host's window are, so an id is known for at least the window of the host that wrote it, and for two at most. The keys
-- of the windows cannot be among KEYS because they depend on the server's clock; they share the slot of their base.
local function bucket(base, number)
    return base .. ':' .. number
end

-- The payload hashes that the inbox holds for `ids`, by their positions (what it does not know is not in the answer),
-- and the box that new ones go into, for `remember`.
local function recall(base, window, now, ids)
    local seen, number = {}, math.floor(now / window)
    local box = {base = base, number = number, window = window, now = now, key = bucket(base, whole(number))}
    if #ids == 0 then return seen, box end
    local listed, names = redis.call('HGETALL', base), {}
    box.listed = listed
    for i = 1, #listed, 2 do
        names[#names + 1] = listed[i]
        -- One that hosts with a shorter window have begun is to live longer.
        if listed[i] == whole(number) then box.there = tonumber(listed[i + 1]) >= window end
    end
    if not box.there then
        -- A Tidemill that keeps no list may have written them.
        local known = named(listed)
        for n = number - 1, number + 1 do
            local name = whole(n)
            if not known[name] and redis.call('EXISTS', bucket(base, name)) == 1 then names[#names + 1] = name end
        end
    end
    for b = 1, #names do
        local key = bucket(base, names[b])
        for from = 1, #ids, PIECE do
            local found = redis.call('HMGET', key, unpack(ids, from, math.min(from + PIECE - 1, #ids)))
            for i = 1, #found do
                if found[i] then seen[from + i - 1] = found[i] end
            end
        end
    end
    return seen, box
end

-- Asks beforehand whether `remember` would be allowed.
local function may_remember(box)
    may('HSET', box.key, '', '')
    if not box.there then
        may('HSET', box.base, '', '')
        may('HDEL', box.base, '')
        may('PEXPIRE', box.key, '1')
        may('UNLINK', box.key)
    end
end

-- A new window has begun: it is listed, and expired ones are removed. Their TTL would free them in one go, and they may
-- be large. A window that follows its predecessor proves that the clock ran evenly; else it was perhaps set ahead, so
-- the last KEPT of the expired ones stay.
local function begin_box(box)
    local LATER_MS, KEPT = 86400000, 2
    local known, over = named(box.listed), {}
    for number, text in pairs(known) do
        local window, n = tonumber(text), tonumber(number)
        if not window or not n then
            redis.call('HDEL', box.base, number)
        elseif (n + 2) * window <= box.now then
            over[#over + 1] = {number = number, ends = (n + 1) * window}
        end
    end
    table.sort(over, function(a, b) return a.ends < b.ends end)
    local evenly = known[whole(box.number - 1)]
    for i = 1, #over - (evenly and 0 or KEPT) do
        redis.call('UNLINK', bucket(box.base, over[i].number))
        redis.call('HDEL', box.base, over[i].number)
    end
    -- What an older Tidemill wrote before this is read from now on, too.
    local before = whole(box.number - 1)
    if not evenly and redis.call('EXISTS', bucket(box.base, before)) == 1 then
        redis.call('HSET', box.base, before, whole(box.window))
    end
    redis.call('HSET', box.base, whole(box.number), whole(box.window))
    local ttl = whole(2 * box.window + LATER_MS)
    redis.call('PEXPIRE', box.key, ttl)
    if redis.call('PEXPIRE', box.base, ttl, 'NX') == 0 then redis.call('PEXPIRE', box.base, ttl, 'GT') end
end

-- Writes deduplication keys[first..last] (id, hash, id, hash, ...) into the box that `recall` has found.
local function remember(box, dedup_keys, first, last)
    if first > last then return end
    call_with(dedup_keys, first, last, 'HSET', box.key)
    if not box.there then begin_box(box) end
end

-- Asks beforehand whether `audit` would be allowed.
local function may_audit(key)
    redis.call('XLEN', key)
    may('XADD', key, 'MAXLEN', '=', '1', '*', 'verb', '')
end

-- Writes an audit record, of which only the newest `records_max` are kept; it names the first `ids_max` of the ids.
local function audit(key, verb, ids, operator, reason, records_max, ids_max)
    local named_ids = table.concat(ids, ' ', 1, math.min(#ids, tonumber(ids_max)))
    redis.call('XADD', key, 'MAXLEN', '=', records_max, '*',
        'verb', verb, 'count', whole(#ids), 'ids', named_ids, 'who', operator, 'note', reason)
end

