-- The fence of a settlement: which of its entries are pending under this very consumer? Stands before settle.lua.

-- A queue: `ids` are its entries in the order of `ops`, `at` how many of them have their outcome, `left_out` the
-- positions of those that are not acked. Only if some are not this consumer's, `mine` tells which are.
local function queue_of(name, key, text, low, high)
    return {
        name = name, key = key, text = text, low = low, high = high,
        ids = {}, at = 0, left_out = {}, all_mine = true,
    }
end

-- One query for all of a queue.
local function fence(queue)
    if queue.text == '' then return end
    -- Entries of this consumer that are not in the batch may lie between: ask for some more.
    local limit = #ops + 64
    local rows = redis.call('XPENDING', queue.key, group, queue.low, queue.high, limit, consumer)
    for i = 1, #rows do queue.ids[i] = rows[i][1] end
    -- Nearly always these are the batch and nothing else: one comparison tells.
    if table.concat(queue.ids, ' ') == queue.text then return end
    queue.all_mine, queue.mine = false, {}
    for i = 1, #rows do queue.mine[rows[i][1]] = true end
    queue.ids = {}
    for id in string.gmatch(queue.text, '[^ ]+') do
        queue.ids[#queue.ids + 1] = id
        if #rows == limit then
            queue.mine[id] = queue.mine[id] or #redis.call('XPENDING', queue.key, group, id, id, 1, consumer) == 1
        end
    end
end

