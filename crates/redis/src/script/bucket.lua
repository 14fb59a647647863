-- State: the time at which the bucket is full again, in us and parts of a us, of which there are
-- `units`; and until when the server keeps the state at least, where that is known, or 0.
local function bucket(state, at)
  local units, inc, inc_part, room, room_part = unpack('<ddddd', at, 4)
  local full, part = 0, 0
  if state then full, part = unpack('<dd', state) end
  if full > now + room or (full == now + room and part > room_part) then return state end
  if full < now then full, part = now, 0 end
  full, part = full + inc, part + inc_part
  if part >= units then full, part = full + 1, part - units end
  return state, pack('<ddd', full, part, 0), full - now
end
