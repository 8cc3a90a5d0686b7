-- What several scripts need. It is put after the first line of each of them.

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

-- A change of the clock by more than this against the time that has passed is a step: somebody has set it, or another
-- server is the primary now. Longer than a command can be on its way twice.
local STEP_MS = 60000

-- The steady clock of a source: the server's, with its steps taken out. What is put off waits for its own delay by it,
-- however the server's clock is set meanwhile. It never goes back; it goes forward with a step only if no host was there
-- to see that (see promote.lua). The books hold what has to be taken off the server's time, and the latest time that was
-- told, as `<ms>:<ms>` in `clock`. Answers the time and what is taken off; then the latest time before, and what was.
local function steady(stats, now)
    local before, latest = string.match(redis.call('HGET', stats, 'clock') or '', '^(-?%d+):(%d+)$')
    before, latest = tonumber(before) or 0, tonumber(latest) or 0
    local off = math.min(before, now - latest)
    return now - off, off, latest, before
end

local function keep_steady(stats, time, off)
    redis.call('HSET', stats, 'clock', whole(off) .. ':' .. whole(time))
end

-- A lease that ends later than its longest length from now was taken before the clock was put back: it is cut to a length
-- in which whoever lives renews it. Answers whether it is held at all.
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

-- What XINFO GROUPS says of one group of a stream; nil if there is no such group or stream.
local function group_info(key, group)
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if groups.err and not string.find(groups.err, 'no such key', 1, true) then error(groups) end
    for i = 1, #groups do
        local info = named(groups[i])
        if info.name == group then return info end
    end
    return nil
end

-- Consumers that are nobody: what is pending under their names is in no host's hands. No host can have such a name.
local RELEASED, QUARANTINE = '(released)', '(quarantine)'

-- What `tries` holds of a delivery: how many hosts have died with it, when the last one did (ms), and `a` if it is being
-- run alone.
local function read_tries(text)
    local crashes, at, alone = string.match(text or '', '^(%d+):?(%d*):?(a?)$')
    return tonumber(crashes) or 0, tonumber(at) or 0, alone == 'a'
end

local function write_tries(crashes, at, alone)
    return whole(crashes) .. ':' .. whole(at) .. (alone and ':a' or '')
end

-- Makes a pending entry that of a consumer who is nobody. XCLAIM drops an entry that somebody has deleted: then the
-- answer is false, and the caller has to bury it.
local function set_aside(key, group, nobody, id)
    return #redis.call('XCLAIM', key, group, nobody, 0, id, 'JUSTID') > 0
end

-- An inbox is a hash of event id -> payload hash for each window of time, named `<base>:<number of the window>`. Both
-- the current and the one before are asked, so an id is known for at least one window and at most two. These keys
-- cannot be among KEYS because only the server's clock says which they are; they share the slot of their base.
local function bucket(base, window, now, back)
    return base .. ':' .. whole(math.floor(now / window) - back)
end

-- The payload hashes that the inbox holds for `ids`, by their positions (what it does not know is not in the answer),
-- and the current bucket: its key, and whether it is there already.
local function recall(base, window, now, ids)
    local seen, current, there = {}, nil, false
    -- The one to come is there if the clock has been put back, or if a server whose clock was ahead is no primary now.
    for back = #ids > 0 and 1 or -2, -1, -1 do
        local key = bucket(base, window, now, back)
        local exists = redis.call('EXISTS', key) == 1
        for from = 1, exists and #ids or 0, PIECE do
            local found = redis.call('HMGET', key, unpack(ids, from, math.min(from + PIECE - 1, #ids)))
            for i = 1, #found do
                if found[i] then seen[from + i - 1] = found[i] end
            end
        end
        if back == 0 then current, there = key, exists end
    end
    return seen, current, there
end

-- Asks beforehand whether `remember` would be allowed.
local function may_remember(current, there)
    may('HSET', current, '', '')
    if not there then
        may('PEXPIRE', current, '1')
        may('UNLINK', current)
    end
end

-- Writes marks[first..last] (id, hash, id, hash, ...) into the current bucket, as `recall` has found it.
local function remember(base, window, now, current, there, marks, first, last)
    if first > last then return end
    call_with(marks, first, last, 'HSET', current)
    if not there then
        redis.call('PEXPIRE', current, whole(2 * window + 60000))
        -- Nobody asks this one any more. Left to its TTL it would be freed in one go, and a bucket may be large.
        redis.call('UNLINK', bucket(base, window, now, 2))
    end
end

-- Asks beforehand whether `audit` would be allowed.
local function may_audit(key)
    redis.call('XLEN', key)
    may('XADD', key, 'MAXLEN', '=', '1', '*', 'verb', '')
end

-- Writes down what a person did: `act` is who it was, why, and how many records are kept and ids named in one.
local function audit(key, verb, ids, act)
    local named_ids = table.concat(ids, ' ', 1, math.min(#ids, act.ids_max))
    redis.call('XADD', key, 'MAXLEN', '=', act.records_max, '*',
        'verb', verb, 'count', whole(#ids), 'ids', named_ids, 'who', act.who, 'note', act.note)
end

-- The four arguments by which every script that leaves an audit record is told of the act.
local function act_of(arguments)
    return {
        who = arguments[1], note = arguments[2], records_max = tonumber(arguments[3]), ids_max = tonumber(arguments[4]),
    }
end

