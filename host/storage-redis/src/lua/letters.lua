-- The accounts of a subscription's dead letters: bytes, which never ran, and which to evict when there are too many.
-- Stands before the scripts that add or remove letters.
--
-- A letter never ran if its class says so and no attempt is on its record. Untrusted input can cause any number of
-- those, so they have half of each bound at most, and are evicted before all others. Among equals the oldest goes
-- first.
--
-- `<dead>:unrun` is a stream with an entry for each letter that never ran, under the same id: its bytes. The counters
-- hold `letters` (how many letters the accounts know: the oldest ones), `letters_upto` (the last of those),
-- `letters_bytes` and `unrun_bytes` (of those that never ran), `evicted_ran` and `evicted_unrun` (what the bounds have
-- cost). If `letters` is not the length of the stream, or a letter lies behind `letters_upto`, an older Tidemill or
-- another program has written or removed some: they are learned on the way, a part with each step that adds letters.
-- Until then they count as letters that ran.

-- The accounts: `known` letters, their `bytes`, and the `unrun_bytes` of those that never ran, up to the id `upto`.
-- Raises an error if something could fail later.
local function accounts_of(dead, unrun, stats)
    redis.call('XLEN', unrun)
    may('XADD', dead, '*', 'class', '')
    may('XDEL', dead, '0-1')
    may('XRANGE', dead, '-', '+')
    may('XADD', unrun, '0-1', 'bytes', '1')
    may('XDEL', unrun, '0-1')
    may('XRANGE', unrun, '-', '+')
    may('UNLINK', unrun)
    may('HSET', stats, 'letters', '0')
    may('HINCRBY', stats, 'dropped', '1')
    local NEVER_RAN = {undecodable = true, invalid = true, unknown = true, conflict = true}
    local COUNTED = {event = true, timer = true, fields = true, large = true, text = true, history = true}
    local names = {'letters', 'letters_bytes', 'unrun_bytes', 'dropped', 'evicted_ran', 'evicted_unrun'}
    local said = redis.call('HMGET', stats, unpack(names))
    for i = 1, #names do
        if said[i] and not string.match(said[i], '^%-?%d+$') then
            error({err = 'ERR ' .. stats .. ': its field ' .. names[i] .. ' is no number'})
        end
    end
    local accounts = {
        dead = dead, unrun = unrun, upto = redis.call('HGET', stats, 'letters_upto') or '0-0',
        known = tonumber(said[1] or 0), bytes = tonumber(said[2] or 0), unrun_bytes = tonumber(said[3] or 0),
    }
    if not string.match(accounts.upto, '^%d+%-%d+$') then
        error({err = 'ERR ' .. stats .. ': its field letters_upto is no id'})
    end

    function accounts.forget()
        redis.call('UNLINK', unrun)
        accounts.known, accounts.bytes, accounts.unrun_bytes, accounts.upto = 0, 0, 0, '0-0'
    end

    -- Body, reason and history. Names and numbers are the same few bytes in each.
    function accounts.measure(fields)
        local size, ran = 0, true
        for i = 1, #fields, 2 do
            local name, value = fields[i], fields[i + 1]
            if COUNTED[name] then size = size + #value end
            if name == 'class' then ran = not NEVER_RAN[value] end
        end
        if not ran then
            for i = 1, #fields, 2 do
                if fields[i] == 'history' then ran = fields[i + 1] ~= '[]' end
            end
        end
        return size, ran
    end

    function accounts.enter(id, fields)
        local size, ran = accounts.measure(fields)
        accounts.known, accounts.bytes, accounts.upto = accounts.known + 1, accounts.bytes + size, id
        -- Fails if another program recreated the stream and the clock was set back: then it counts as one that ran.
        if not ran and not redis.pcall('XADD', unrun, id, 'bytes', whole(size)).err then
            accounts.unrun_bytes = accounts.unrun_bytes + size
        end
        return size
    end

    return accounts
end

-- What one step learns, and evicts beyond as much as it has added (a bound that was lowered): letters, bytes.
local STEP_MAX, STEP_BYTES_MAX = 1000, 16777216

-- Enters letters that the accounts do not know.
local function learn(accounts)
    local LEARN_PAGE = 10
    local count, size, anew = 0, 0, false
    while count < STEP_MAX and size < STEP_BYTES_MAX do
        local rows = redis.call('XRANGE', accounts.dead, '(' .. accounts.upto, '+', 'COUNT', LEARN_PAGE)
        if #rows == 0 then
            if anew or accounts.known == redis.call('XLEN', accounts.dead) then return end
            -- None is left, and the number is wrong: another program has removed letters that were known.
            accounts.forget()
            anew = true
        end
        for i = 1, #rows do size = size + accounts.enter(rows[i][1], rows[i][2]) end
        count = count + #rows
    end
end

-- Removes the oldest letters beyond the bounds. Returns how many of those that ran, and of those that never did.
local function evict(accounts, bounds, added, added_bytes)
    local max, bytes_max = string.match(bounds, '^(%d+) (%d+)$')
    max, bytes_max = tonumber(max), tonumber(bytes_max)
    local dead, unrun = accounts.dead, accounts.unrun
    local total, unrun_total = redis.call('XLEN', dead), redis.call('XLEN', unrun)
    local letters_left, bytes_left = STEP_MAX + added, STEP_BYTES_MAX + added_bytes
    local function has_room() return letters_left > 0 and bytes_left > 0 end
    local function is_over() return total > max or accounts.bytes > bytes_max end
    local function is_over_half()
        return unrun_total > math.floor(max / 2) or accounts.unrun_bytes > math.floor(bytes_max / 2)
    end
    local function go(size)
        total, accounts.bytes = total - 1, accounts.bytes - size
        letters_left, bytes_left = letters_left - 1, bytes_left - size
    end

    local gone_unrun = 0
    while unrun_total > 0 and (is_over() or is_over_half()) and has_room() do
        local ids = {}
        for _, row in ipairs(redis.call('XRANGE', unrun, '-', '+', 'COUNT', 100)) do
            if not has_room() or not (is_over() or is_over_half()) then break end
            local size = tonumber(row[2][2]) or 0
            go(size)
            accounts.known, accounts.unrun_bytes = accounts.known - 1, accounts.unrun_bytes - size
            unrun_total = unrun_total - 1
            ids[#ids + 1] = row[1]
        end
        redis.call('XDEL', unrun, unpack(ids))
        local gone = redis.call('XDEL', dead, unpack(ids))
        -- Another program had removed the others before.
        gone_unrun, total = gone_unrun + gone, total + #ids - gone
    end

    local ids, after = {}, '-'
    while is_over() and has_room() do
        local row = redis.call('XRANGE', dead, after, '+', 'COUNT', 1)[1]
        if not row then break end
        ids[#ids + 1], after = row[1], '(' .. row[1]
        -- The oldest are those that are known.
        go(accounts.known > 0 and accounts.measure(row[2]) or 0)
        accounts.known = math.max(0, accounts.known - 1)
    end
    call_with(ids, 1, #ids, 'XDEL', dead)
    return #ids, gone_unrun
end

-- `bounds`: letters and their bytes at most, `100000 268435456`. Only a script that adds letters needs them. To be
-- called before anything is written: what could fail later raises an error here.
local function letters_of(dead, stats, bounds)
    local unrun = dead .. ':unrun'
    local length = redis.call('XLEN', dead)
    local accounts = accounts_of(dead, unrun, stats)
    local letters = {}
    local all_known, added, added_bytes, removed = accounts.known == length, 0, 0, 0
    if all_known and length > 0 then
        all_known = #redis.call('XRANGE', dead, '(' .. accounts.upto, '+', 'COUNT', 1) == 0
    end

    function letters.add(fields)
        local id = redis.call('XADD', dead, '*', unpack(fields))
        if length == 0 and added == 0 then accounts.forget() end
        added = added + 1
        if all_known then added_bytes = added_bytes + accounts.enter(id, fields) end
    end

    -- An entry was deleted from its stream while it was pending. Its bytes are gone, but that it was there must not be
    -- forgotten.
    function letters.add_without_body(id)
        letters.add({'class', 'undecodable',
            'text', 'the entry was deleted from the stream before it was handled; its bytes are lost',
            'fields', '', 'origin', id, 'attempts', '0', 'crashes', '0', 'history', '[]'})
    end

    -- The caller removes this letter. One at a time, so that no script holds the bodies of many.
    function letters.remove(id, fields)
        removed = removed + 1
        if all_known then
            local size, ran = accounts.measure(fields)
            accounts.known, accounts.bytes = accounts.known - 1, accounts.bytes - size
            if not ran and redis.call('XDEL', unrun, id) == 1 then
                accounts.unrun_bytes = accounts.unrun_bytes - size
            end
        elseif accounts.known > 0 then
            -- Whether it is one of those that are known is not worth finding out: they are learned again.
            accounts.forget()
        end
    end

    -- Applies the bounds to what was added, and stores the accounts.
    function letters.close()
        if added + removed == 0 then return end
        if added > 0 then
            if not all_known then learn(accounts) end
            local ran, never_ran = evict(accounts, bounds, added, added_bytes)
            if ran + never_ran > 0 then redis.call('HINCRBY', stats, 'dropped', ran + never_ran) end
            if ran > 0 then redis.call('HINCRBY', stats, 'evicted_ran', ran) end
            if never_ran > 0 then redis.call('HINCRBY', stats, 'evicted_unrun', never_ran) end
        end
        if redis.call('XLEN', dead) == 0 then accounts.forget() end
        redis.call('HSET', stats, 'letters', whole(accounts.known), 'letters_bytes', whole(math.max(0, accounts.bytes)),
            'unrun_bytes', whole(math.max(0, accounts.unrun_bytes)), 'letters_upto', accounts.upto)
    end

    return letters
end

