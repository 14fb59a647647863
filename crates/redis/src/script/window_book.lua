local function book_window(key, at, refund)
  if refund then
    local _, cost, _, charged_in = unpack('<dddd', at, 4)
    local state = call('GET', key)
    if not state then return end
    local last, used = unpack('<dd', state)
    -- Only in the window that they were charged in.
    if last == charged_in then
      call('SETRANGE', key, '0', pack('<dd', last, math.max(used - cost, 0)))
    end
  else
    local limit, cost, length, number, finish = place(at)
    local last, used = used_in(call('GET', key), number, limit)
    used = used + cost
    -- Each window to come pays off up to the limit.
    local debt = math.ceil(used / limit) - 1
    local keep = finish - now + (last - number + math.max(debt, 0)) * length
    call('SET', key, pack('<ddd', last, used, 0), 'PXAT', expiry(keep))
  end
end
