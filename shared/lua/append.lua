-- Append entries to a log that is mine, open, and ends where I think it ends.
-- KEYS  1 record  2 log
-- ARGV  1 claim token  2 epoch  3 seq of the first entry
--       4 id of the upstream answer after these entries, '' without one  5 position in it, or ''
--       6 1 if 4 and 5 are to be noted, else ''
--       7… type and data in turn, one pair an entry; none at all is a look
-- Reply {state, 1 if the token is mine, epoch of the record, last id of the log}; state is '' where there is none.
-- Entries are added all or not at all; the caller learns what happened from the last id.
local record = redis.call('HMGET', KEYS[1], 'state', 'token', 'epoch')
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not record[1] or not last then return {'', 0, record[3] or '0', '0-0'} end
local mine = record[2] == ARGV[1]
last = last[1]
if record[1] == 'running' and mine and last == ARGV[2] .. '-' .. string.format('%.0f', ARGV[3] - 1) then
  local seq = ARGV[3] + 0
  for i = 7, #ARGV, 2 do
    last = ARGV[2] .. '-' .. string.format('%.0f', seq)
    redis.call('XADD', KEYS[2], last, 't', ARGV[i], 'd', ARGV[i + 1])
    if ARGV[i] == 'reset' then redis.call('HSET', KEYS[1], 'reset_at', last) end
    seq = seq + 1
  end
  if ARGV[6] == '1' then redis.call('HSET', KEYS[1], 'upstream_id', ARGV[4], 'upstream_at', ARGV[5]) end
end
return {record[1], mine and 1 or 0, record[3], last}
