#!lua flags=no-writes
-- Counts one page of the entries after an id. Redis has no command for that, and the entries need not travel.
--
-- KEYS     stream
-- ARGV     after (an id)  page (entries)
-- returns  count  last (id of the last one; nil: none)

local rows = redis.call('XRANGE', stream, '(' .. after, '+', 'COUNT', page)
return {'count', #rows, 'last', #rows > 0 and rows[#rows][1]}
