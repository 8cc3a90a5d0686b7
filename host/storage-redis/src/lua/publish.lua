#!lua
-- Appends events to a stream, in order, except those with an id that this stream has seen within the window.
--
-- KEYS     stream  inbox (base of the stream's)
-- ARGV     window_ms (of the inbox)
--          more: for each event its bytes, its id and payload hash (empty: no deduplication key)
-- returns  for each event its entry id, or U (duplicate) or X (conflict)

local now = clock()

may('XADD', stream, '*', 'event', '')
local ids = {}
for i = MORE_ARGS + 1, #ARGV, 3 do
    if ARGV[i] ~= '' then ids[#ids + 1] = ARGV[i] end
end
local hashes, box = recall(inbox, tonumber(window_ms), now, ids)
if #ids > 0 then may_remember(box) end
local seen = {}
for i, hash in pairs(hashes) do seen[ids[i]] = hash end

local answer, dedup_keys = {}, {}
for i = MORE_ARGS, #ARGV, 3 do
    local id, hash = ARGV[i + 1], ARGV[i + 2]
    local before = id ~= '' and seen[id]
    if before then
        answer[#answer + 1] = before == hash and 'U' or 'X'
    else
        answer[#answer + 1] = redis.call('XADD', stream, '*', 'event', ARGV[i])
        if id ~= '' then
            seen[id] = hash
            dedup_keys[#dedup_keys + 1] = id
            dedup_keys[#dedup_keys + 1] = hash
        end
    end
end
remember(box, dedup_keys, 1, #dedup_keys)
return answer
