"""Plausible inputs for models that come without samples: English sentences, drawn images, synthetic
sound. Seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SENTENCES = (
    "The committee will publish its findings on water quality in the northern lakes next spring.",
    "How do I reset the password of my account?",
    "A small dog ran across the muddy field, chasing a red ball.",
    "Interest rates rose by a quarter of a point, the third increase this year.",
    "She opened the window to let in the smell of rain.",
    "The train to Lyon leaves from platform four at 9:15.",
    "Researchers measured how quickly the bacteria adapted to higher temperatures.",
    "I would not recommend this restaurant; the soup was cold and the service slow.",
    "Please send the signed contract back before Friday noon.",
    "The old lighthouse has guided ships past the reef for more than a century.",
    "Python is a programming language that is used for scripting, data analysis and machine "
    "learning.",
    "What a wonderful performance!",
    "The patient was given antibiotics and discharged after three days.",
    "Two teenagers were rescued from the mountain after a night in the snow.",
    "To make the dough, mix flour, water, salt and a little yeast, then let it rest.",
    "The court ruled that the company had broken the terms of its licence.",
    "He plays the violin in the city orchestra and teaches on weekends.",
    "Solar panels now provide a fifth of the village's electricity.",
    "Where can I find the nearest pharmacy that is open on Sunday?",
    "The second half of the film drags, but the ending makes up for it.",
    "Engineers closed the bridge to traffic after cracks were found in a pillar.",
    "Our flight was delayed by four hours because of fog.",
    "The museum's new wing shows ceramics from the twelfth century.",
    "Add the vectors, divide by their count, and you have the mean embedding.",
    "Prices of wheat fell sharply after a record harvest.",
    "The keyboard feels solid, but the battery lasts less than a day.",
    "In 1969 people walked on the Moon for the first time.",
    "Children under six travel free when accompanied by an adult.",
    "The volcano had been quiet for almost two hundred years.",
    "Nobody answered the door, so the parcel was left with a neighbour.",
    "Her argument rests on a single assumption, and it is a doubtful one.",
    "The server returned an error because the request was too large.",
)

CALIBRATION = (  # none of them is one of SENTENCES, which verification uses
    "The harbour freezes over in January, and the ferries stop until March.",
    "Can you send me the invoice for last month's delivery again?",
    "Three goals in the final ten minutes turned the match around.",
    "Cells divide faster when the growth factor is present in the medium.",
    "I have been waiting for a reply for more than two weeks now.",
    "The new library has a reading room, a café and a garden on the roof.",
    "Turn left at the church and follow the river until you reach the mill.",
    "According to the report, unemployment fell in all but two regions.",
    "This jacket is warm, light and surprisingly cheap.",
    "The function returns the index of the first element that matches.",
    "Her grandmother taught her to knit before she could read.",
    "Without a permit you may not fish in these waters.",
    "Which of the two proposals would cost the city less?",
    "The orchestra opened the season with a symphony by Dvořák.",
    "My phone will not charge unless I hold the cable at an angle.",
    "Sea levels have risen by about twenty centimetres since 1900.",
    "He apologised for the mistake and offered to pay for the repairs.",
    "A thin layer of ice covered the windscreen this morning.",
    "The hotel was clean and quiet, and the staff could not have been kinder.",
    "If the signal is lost, the drone returns to where it took off.",
    "Scientists still disagree about what caused the extinction.",
    "Mix the butter and sugar until pale, then add the eggs one by one.",
    "The prime minister declined to comment on the rumours.",
    "Would you rather live by the sea or in the mountains?",
    "Share prices recovered slightly towards the end of the day.",
    "The novel follows four friends from their school days into old age.",
    "Patients who exercised regularly recovered in half the time.",
    "It was the worst customer service I have ever had.",
    "To install the package, run the command below in a terminal.",
    "The desert blooms for only a few days after the rain.",
    "Every employee must complete the safety training by the end of June.",
    "The children built a raft out of barrels and rope.",
    "Gravity bends light, which is why the star seems to have moved.",
    "How many calories are there in a slice of rye bread?",
    "The witness could not remember the colour of the car.",
    "Volunteers planted two thousand oaks along the motorway.",
    "The plot is thin, but the photography is breathtaking.",
    "Sales of electric bicycles have doubled in the past three years.",
    "Store the medicine in a cool, dry place, out of reach of children.",
    "The committee meets on the first Tuesday of every month.",
    "A power cut left forty thousand homes in the dark.",
    "I love the way she writes about ordinary things.",
    "The algorithm sorts the list in place and needs no extra memory.",
    "Ancient traders carried salt, silk and spices along this road.",
    "Please keep your seat belt fastened until the sign is switched off.",
    "The goalkeeper dived the wrong way, and the stadium erupted.",
    "What time does the pharmacy close on Saturdays?",
    "Bees find their way by the position of the sun.",
    "The judge adjourned the hearing until after the holidays.",
    "Their first album sold poorly but is now considered a classic.",
    "The recipe calls for two cloves of garlic and a pinch of saffron.",
    "Astronomers have discovered a planet that orbits two stars.",
    "The refund was in my account within a day; highly recommended.",
    "Strong winds forced the airport to close one of its runways.",
    "He could not decide whether to laugh or to cry.",
    "The museum offers free admission on the first Sunday of the month.",
    "Copper conducts heat better than iron does.",
    "We regret to inform you that your application was not successful.",
    "The castle burned down twice and was rebuilt in stone.",
    "Is it safe to eat the leaves of this plant?",
    "The bank lowered its forecast for growth to one per cent.",
    "After the storm the beach was covered with driftwood and weed.",
    "The tutorial explains step by step how to train a small network.",
    "Nobody had expected the smallest team to win the cup.",
    "The lake is so clear that you can see the stones ten metres down.",
    "I forgot my umbrella on the bus and got soaked on the way home.",
    "Our neighbours are building a fence along the garden path.",
    "The vaccine must be kept below five degrees during transport.",
    "He has been learning Spanish for three years and still mixes up the tenses.",
    "The bakery on the corner sells out of rye bread before nine.",
    "Does this insurance cover damage caused by flooding?",
    "The senator voted against the bill despite pressure from his party.",
    "Light from the nearest star takes more than four years to reach us.",
    "The waiter brought the wrong dish but corrected it at once.",
    "Several species of frog have vanished from these forests.",
    "Please enter your date of birth and press the green button.",
    "The defender was sent off for a foul just before half time.",
    "Her new poems are shorter, darker and far more personal.",
    "Cut the potatoes into thin slices and fry them until golden.",
    "The factory has reduced its emissions by a third since 2015.",
    "We walked along the canal until the lights of the town appeared.",
    "This paper proposes a faster method for sorting large graphs.",
    "The tenant must give written notice three months in advance.",
    "There is a crack in the screen, and the speaker no longer works.",
    "The expedition reached the pole after sixty days on skis.",
    "A loaf of bread cost a million marks by the autumn of that year.",
    "What is the difference between a virus and a bacterium?",
    "The actors were good, yet I never believed a word of the dialogue.",
    "Shares of the airline dropped by nine per cent on Monday.",
    "Roman engineers carried water to the city over stone arches.",
    "You can cancel the subscription at any time in your settings.",
    "The cat slept on the warm bonnet of the car all afternoon.",
    "Heavy snow has blocked the pass since Sunday evening.",
    "The teacher asked everyone to read the first two chapters.",
    "Insulin allows the body to take up sugar from the blood.",
    "They met at a concert in Prague and married a year later.",
    "The compiler warns about variables that are never used.",
    "In spring the meadows along the river turn yellow with flowers.",
    "The minister promised new schools, but no date was given.",
    "My daughter wants to become a vet or a pilot.",
    "The sauce was far too salty and the rice undercooked.",
    "Earthquakes occur where the plates of the crust slide past each other.",
    "Turn the handle to the left while pushing the door.",
    "The trial begins in June and is expected to last six weeks.",
    "Free parking is available behind the supermarket.",
    "The violinist broke a string and finished the piece on three.",
    "Drinking enough water is especially important in hot weather.",
    "The fund invests in small companies that produce clean energy.",
    "Who wrote the music for this film?",
    "An old map of the island hung above the fireplace.",
    "The software update fixes two bugs and improves battery life.",
    "The marathon winner collapsed just after crossing the line.",
    "Apples keep longest in a dark and well aired cellar.",
    "She repaired the radio with a piece of wire and some luck.",
    "The survey found that most people prefer to work from home.",
    "Rice is grown on terraces cut into the steep hillsides.",
    "The lawyer asked the court to dismiss the evidence.",
    "Can I bring my bicycle on the evening train?",
    "The first printed books were made to look like manuscripts.",
    "The tyres should be changed before winter sets in.",
    "Whales sing to each other over hundreds of kilometres.",
    "The apartment is bright, quiet and close to the station.",
    "After the divorce he moved back to his home town.",
    "A new law requires restaurants to list allergens on the menu.",
    "The glacier has lost half of its volume since my grandfather's day.",
    "Our website will be unavailable tonight between one and three.",
    "The detective noticed that the clock had stopped at noon.",
    "Lemon juice keeps the sliced avocado from turning brown.",
    "The championship will be decided on the last day of the season.",
    "I am looking for a present for a boy who loves dinosaurs.",
    "Electric current is measured in amperes.",
    "The army was forced to retreat across the frozen river.",
    "Unfortunately, the parcel arrived damaged and two glasses were broken.",
    "The gallery shows photographs of cities at night.",
    "Neural networks learn by adjusting millions of small weights.",
    "Farmers fear that the drought will ruin this year's olives.",
    "How long should I boil an egg?",
    "The bridge was opened by the queen in 1932.",
    "He spoke so softly that nobody in the back row could hear him.",
    "The theory predicts that the two particles always appear together.",
    "Fresh basil should be added only at the very end.",
    "The union has called a strike for next Thursday.",
    "Their dog is friendly, but he barks at every cyclist.",
    "The patient complained of a sharp pain in the lower back.",
    "This camera takes excellent pictures even in poor light.",
    "Merchants from Venice brought glass and mirrors to the court.",
    "The password must contain at least one digit and one capital letter.",
    "Fog rolled in from the sea and hid the harbour.",
    "The orchestra will tour South America in the autumn.",
    "The mechanic could not find the source of the noise.",
    "Which vitamins are good for the eyes?",
    "The ferry carries cars, lorries and up to nine hundred passengers.",
    "Inflation slowed for the fourth month in a row.",
    "The tent is easy to put up and survived a night of heavy rain.",
    "Bacteria in the gut help us to digest fibre.",
    "Two hikers were found alive after a week in the mountains.",
    "The library closes early on public holidays.",
    "A good translation keeps the rhythm of the original.",
    "The rocket failed to reach orbit because of a faulty valve.",
    "My grandmother kept her letters in a blue tin box.",
    "The council wants to turn the car park into a playground.",
    "Click on the link in the message to confirm your address.",
    "The coffee here is strong, and the cakes are home made.",
    "The river changes its course a little after every flood.",
    "Nobody knows who painted the ceiling of this chapel.",
    "The experiment was repeated with a larger group of students.",
    "Keep the receipt, or you cannot exchange the shoes.",
    "The wolves return to the valley when the snow melts.",
    "The company denies that any customer data were stolen.",
    "Is there a doctor on board?",
    "The carpenter planed the boards until they fitted perfectly.",
    "A total eclipse will be visible from the north of the country.",
    "The sequel is louder, longer and much less funny.",
    "Tea was first planted here in the nineteenth century.",
    "We would like to book a table for six at half past seven.",
    "The pump stopped working, and the cellar filled with water.",
    "The chess player thought for an hour about a single move.",
    "Children learn new words fastest before the age of five.",
    "The mayor opened the new tram line with a short speech.",
    "Salt lowers the freezing point of water.",
    "I have never seen so many stars as on that night.",
    "The warranty does not cover normal wear and tear.",
    "The scientist named the beetle after her favourite singer.",
    "Three of the four engines were damaged by volcanic ash.",
    "The soup tastes better on the second day.",
    "An index makes searching in large tables much faster.",
    "The village elects a new council every four years.",
    "He missed the last train and slept in the waiting room.",
    "The statue was found by divers off the coast of Sicily.",
    "Does the price include breakfast and the use of the pool?",
    "The trees along the avenue are more than a century old.",
    "Most of the refugees found shelter with relatives.",
)


def draw_sentences(count: int, seed: int, *, calibration: bool = False) -> list[str]:
    """Return ``count`` sentences in a seeded order; beyond the list's length, pairs of them. Those
    for ``calibration`` are others."""
    import numpy as np

    stock = CALIBRATION if calibration else SENTENCES
    order = np.random.default_rng(seed).permutation(len(stock))
    sentences = [stock[i] for i in order]
    while len(sentences) < count:
        i = len(sentences)
        sentences.append(f"{sentences[i % len(stock)]} {sentences[(i * 7 + 3) % len(stock)]}")
    return sentences[:count]


def draw_image(height: int, width: int, seed: int) -> np.ndarray:
    """Return a picture, uint8 [height, width, 3]: a colour gradient, a disc, a bar and a little
    noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    tilt = rng.uniform(-1, 1, (2, 3))
    picture = 0.5 + 0.35 * (y[..., None] * tilt[0] + x[..., None] * tilt[1])
    cy, cx, radius = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), rng.uniform(0.1, 0.3)
    picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 1, 3)
    bar = rng.uniform(0, 0.8)
    picture[(x > bar) & (x < bar + 0.1)] = rng.uniform(0, 1, 3)
    picture += rng.normal(0, 0.02, picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def draw_sound(samples: int, rate: int, seed: int) -> np.ndarray:
    """Return a waveform, float32 [samples] in [-1, 1], of ``rate`` samples a second: a few gliding
    tones under a slow envelope, and a little noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    time = np.arange(samples, dtype=np.float64) / rate
    wave = np.zeros(samples)
    for _ in range(4):
        pitch, glide, phase = rng.uniform(90, 1200), rng.uniform(-40, 40), rng.uniform(0, 6.28)
        wave += rng.uniform(0.2, 1) * np.sin(
            2 * np.pi * (pitch * time + glide * time**2 / 2) + phase
        )
    wave *= 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 5) * time)
    wave += rng.normal(0, 0.01, samples)
    return (wave / np.abs(wave).max()).astype(np.float32)
