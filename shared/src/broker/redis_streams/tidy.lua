-- Trims what every group has acknowledged, and removes names of dead consumers that hold nothing.
-- KEYS[1] the stream; ARGV[1] our group; ARGV[2] milliseconds of silence after which a consumer counts as dead;
-- ARGV[3] a consumer that is removed at once where it holds nothing, or ''.
-- Answers {entries trimmed, consumers removed}. One script, because between looking at the groups and trimming
-- nobody may add a group that has yet to read what is there.

local function fields(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0} end

local removed = 0
local ms, seq
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if group['name'] == ARGV[1] then
    for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group['name'])) do
      local consumer = fields(row)
      -- Removing a consumer drops what is pending for it.
      if consumer['pending'] == 0
        and (consumer['idle'] >= tonumber(ARGV[2]) or consumer['name'] == ARGV[3]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group['name'], consumer['name'])
        removed = removed + 1
      end
    end
  end
  -- The first entry that this group still needs.
  local group_ms, group_seq
  if group['pending'] > 0 then
    group_ms, group_seq = parse(redis.call('XPENDING', KEYS[1], group['name'])[2])
  else
    group_ms, group_seq = parse(group['last-delivered-id'])
    group_seq = group_seq + 1
  end
  if not ms or group_ms < ms or (group_ms == ms and group_seq < seq) then
    ms, seq = group_ms, group_seq
  end
end

local trimmed = 0
if ms then
  -- Whole nodes only, and no more in one go than takes a few milliseconds.
  trimmed = redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f-%.0f', ms, seq), 'LIMIT', 100000)
end
return {trimmed, removed}
