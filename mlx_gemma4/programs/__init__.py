"""A session put to one use: chats, transcripts and descriptions of videos."""
