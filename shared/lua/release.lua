-- Make an accepted job due now and wake one idle worker; never touches a job that has an owner.
-- KEYS  1 queue  2 job  3 owner  4 wake
-- ARGV  1 job id  2 job as arq stores it, '' to leave one alone that is not there
--       3 lifetime of the job ms  4 longest wake list
-- Reply 1 if it was made due, 0 if somebody owns it, or nobody needs it any more.
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3], 'NX')
elseif not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or now)
redis.call('ZADD', KEYS[1], string.format('%.0f', math.min(due, now)), ARGV[1])
-- A wake is a favour: a list of another type only costs that.
redis.pcall('LPUSH', KEYS[4], ARGV[1])
redis.pcall('LTRIM', KEYS[4], 0, ARGV[4] - 1)
return 1
