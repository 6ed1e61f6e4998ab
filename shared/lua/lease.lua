-- Lease due jobs: the sorted set is the lease table, a score the end of a lease (visibility time-out).
-- KEYS  1 queue
-- ARGV  1 most jobs to take  2 lease ms  3 mark ms  4 prefix of owner keys
--       5 lifetime of an owner key ms  6 token stem, drawn for this call
-- Reply {ms until the earliest remaining score or -1, id, token, id, token, …}
-- A lapsed job that has an owner is marked first, and taken only if it was not renewed by then:
-- after a Redis outage longer than the lease, owners come back before anybody takes their jobs.
-- Taking it gives it a fresh token, so a renewal with the old one is refused from then on.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room, taken = tonumber(ARGV[1]), {}
while room > 0 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, room)
  for _, id in ipairs(due) do
    -- Of another type (an error: a table) it is garbage, and nobody's.
    local owner = redis.pcall('GET', ARGV[4] .. id)
    if type(owner) == 'string' and string.sub(owner, 1, 1) ~= '~' then
      redis.call('SET', ARGV[4] .. id, '~' .. owner, 'KEEPTTL')
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), id)
    else
      local token = ARGV[6] .. (#taken / 2)
      redis.call('SET', ARGV[4] .. id, token, 'PX', ARGV[5])
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), id)
      taken[#taken + 1] = id
      taken[#taken + 1] = token
      room = room - 1
    end
  end
  if #due == 0 then break end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = first[2] and math.max(0, first[2] - now) or -1
return {string.format('%.0f', wait), unpack(taken)}
