-- Renew leases, each only for the token that holds it; a mark is taken back.
-- KEYS  1 queue
-- ARGV  1 lease ms  2 prefix of owner keys  3… id and token in turn
-- Reply {id, …}: the ids that are no longer mine.
local time = redis.call('TIME')
local until_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
local lost = {}
for i = 3, #ARGV, 2 do
  local key = ARGV[2] .. ARGV[i]
  local owner = redis.pcall('GET', key)
  if owner == ARGV[i + 1] or owner == '~' .. ARGV[i + 1] then
    redis.call('SET', key, ARGV[i + 1], 'KEEPTTL')
    redis.call('ZADD', KEYS[1], until_ms, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
