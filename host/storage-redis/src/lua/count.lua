#!lua flags=no-writes
-- Counts one page of the entries after an id. Redis has no command for that, and the entries need not travel.
--
-- KEYS     1 stream
-- ARGV     1 id  2 entries a page
-- returns  how many, and the id of the last (nil: none)

local page = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {#page, #page > 0 and page[#page][1]}
