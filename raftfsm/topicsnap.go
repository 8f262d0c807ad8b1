package raftfsm

import (
	"unsafe"

	"imroute/mesh/wire"
)

// A packed topic is kind u8 · tenant length u8 · name length u8 · number of holders u8 · tenant · name · holders u32 each, which
// count the members from 0. A topic may come several times, with other holders.
const packedTopic = 4

func (v *View) writeTopics(cw *chunkWriter, ordinals map[wire.NodeID]uint32) (holdings int, err error) {
	buf := make([]byte, 0, routesChunk+packedTopic+wire.MaxTenant+wire.MaxTopicName+4*blockBits)
	for i := range v.topics {
		v.topics[i].eachPage(func(p page) bool {
			return p.each(func(_ uint16, off int) bool {
				t, block := topicAt(p, off)
				start := len(buf)
				buf = append(buf, byte(t.Kind), byte(len(t.Tenant)), byte(len(t.Name)), 0)
				buf = append(append(buf, t.Tenant...), t.Name...)
				p.eachHolder(off, block, func(ord uint32) {
					if o := v.owners[ord]; o.live {
						buf = le.AppendUint32(buf, ordinals[o.node])
						buf[start+3]++ // at most blockBits
					}
				})
				if buf[start+3] == 0 {
					buf = buf[:start]
					return true
				}
				holdings += int(buf[start+3])
				if len(buf) >= routesChunk {
					err = cw.chunk(chunkTopics, buf)
					buf = buf[:0]
				}
				return err == nil
			})
		})
		if err != nil {
			return holdings, err
		}
	}
	if len(buf) > 0 {
		err = cw.chunk(chunkTopics, buf)
	}
	return holdings, err
}

func (sr *snapshotReader) readTopics(b []byte) error {
	if sr.version == versionNoTopics {
		return damaged("chunk %d: topics in format version %d", sr.chunks, sr.version)
	}
	t := sr.t
	for len(b) > 0 {
		if len(b) < packedTopic {
			return damaged("chunk %d: %d bytes behind the last topic", sr.chunks, len(b))
		}
		kind, tenant, name, holders := wire.TopicKind(b[0]), int(b[1]), int(b[2]), int(b[3])
		size := packedTopic + tenant + name + 4*holders
		if !kind.Known() || name == 0 || tenant > wire.MaxTenant || holders == 0 || len(b) < size {
			return damaged("chunk %d: malformed topic", sr.chunks)
		}
		// The strings live as long as the buffer: join keeps nothing of them.
		topic := wire.Topic{Kind: kind, Name: unsafe.String(&b[packedTopic+tenant], name)}
		if tenant > 0 {
			topic.Tenant = unsafe.String(&b[packedTopic], tenant)
		}
		list := b[packedTopic+tenant+name : size]
		b = b[size:]
		for ; len(list) > 0; list = list[4:] {
			node := le.Uint32(list)
			if int64(node) >= int64(len(sr.members)) || sr.members[node].State == Down {
				return damaged("chunk %d: %s is held by a node that is down or none", sr.chunks, topic)
			}
			before := t.topics.holdings
			if t.join(topic, sr.members[node].owner); t.topics.holdings == before {
				return damaged("chunk %d: a holder of %s is there twice, or there are too many", sr.chunks, topic)
			}
			sr.topics++
		}
	}
	return nil
}
