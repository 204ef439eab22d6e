-- What waits for a group. KEYS[1] the stream; ARGV[1] the group.
-- Answers {delivered and not acknowledged, not yet delivered, age of the oldest of both in milliseconds or -1}.

local function fields(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0, -1} end

local pending, lag, last = 0, false, '0-0'
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if group['name'] == ARGV[1] then
    pending, lag, last = group['pending'], group['lag'], group['last-delivered-id']
  end
end

local oldest
if pending > 0 then
  oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
end
local next_new = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
if not next_new then
  lag = 0
elseif not lag then
  -- Redis cannot tell after an XDEL or an XGROUP SETID: at most what is there and not delivered.
  lag = math.max(redis.call('XLEN', KEYS[1]) - pending, 1)
end
if not oldest and next_new then oldest = next_new[1] end

local age = -1
if oldest then
  local now = redis.call('TIME')
  age = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(oldest, '^(%d+)')))
end
return {pending, lag, age}
