-- Compares entry ids, and detects whether a subscription has settled anything.

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

-- Grows with every settlement of a subscription.
local function sum_of(stats, dead)
    local totals = redis.call('HMGET', stats, 'committed', 'skipped', 'retried')
    local letters = redis.call('EXISTS', dead) == 1 and named(redis.call('XINFO', 'STREAM', dead))['last-generated-id'] or ''
    return (totals[1] or '0') .. ' ' .. (totals[2] or '0') .. ' ' .. (totals[3] or '0') .. ' ' .. letters
end

