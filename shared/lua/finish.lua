-- Let go of a job: done for good, or back into the queue. Only for the token that holds it.
-- KEYS  1 queue  2 owner  3 job  4 retry  5 wake
-- ARGV  1 job id  2 token  3 ms until it is due again, or '' when it is done
-- Reply 1 if it was mine, 0 if not (and nothing was touched).
local owner = redis.pcall('GET', KEYS[2])
if owner ~= ARGV[2] and owner ~= '~' .. ARGV[2] then return 0 end
-- The queue first: if it is of another type, the error leaves everything as it is.
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
else
  local time = redis.call('TIME')
  local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
  redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[1])
  redis.call('DEL', KEYS[2])
  if ARGV[3] == '0' then redis.pcall('LPUSH', KEYS[5], ARGV[1]) end
end
return 1
